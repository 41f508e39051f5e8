//! Access tokens: what is issued can be verified by anybody, and what is forged is refused.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use jwt_simple::prelude::{
    Base64UrlSafeNoPadding, ES256KeyPair, Ed25519KeyPair, EdDSAKeyPairLike as _, HS256Key,
    JWTClaims, MACLike as _, NoCustomClaims, RS256KeyPair, RS256PublicKey, RSAKeyPairLike as _,
    RSAPublicKeyLike as _,
};
use jwt_simple::reexports::ct_codecs::{Decoder as _, Encoder as _};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::client::{User, upgrade};
use crate::harness::{Server, on_postgres, shared, signing_key};

/// The claim that RFC 7519 does not have.
#[derive(Serialize, Deserialize)]
struct Session {
    sid: Option<String>,
}

fn decoded(base64: &str) -> Vec<u8> {
    Base64UrlSafeNoPadding::decode_to_vec(base64, None).unwrap()
}

fn encoded(json: &Value) -> String {
    Base64UrlSafeNoPadding::encode_to_string(json.to_string()).unwrap()
}

/// A token's header (0) or claims (1).
fn part(token: &str, index: usize) -> Value {
    serde_json::from_slice(&decoded(token.split('.').nth(index).unwrap())).unwrap()
}

fn jwks(server: &Server) -> Value {
    server.call("GET", "/.well-known/jwks.json").send().expect(200)
}

fn kid(server: &Server) -> String {
    jwks(server)["keys"][0]["kid"].as_str().unwrap().to_owned()
}

/// The claims of a good token, with `changes`; null takes one out.
fn claims(good: &str, changes: &Value) -> JWTClaims<Session> {
    let mut claims = part(good, 1);
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    serde_json::from_value(claims).unwrap()
}

fn own_key() -> RS256KeyPair {
    RS256KeyPair::from_pem(signing_key()).unwrap()
}

/// Signed by the server's own key.
fn signed(good: &str, changes: &Value) -> String {
    let kid = part(good, 0)["kid"].as_str().unwrap().to_owned();
    own_key().with_key_id(&kid).sign(claims(good, changes)).unwrap()
}

/// Neither REST nor sockets let it in.
#[track_caller]
fn assert_refused(server: &Server, what: &str, token: &str) {
    let answer = server.call("GET", "/v1/users/me").token(token).send();
    assert_eq!(answer.status, 401, "{what}: {}", answer.text());
    answer.problem(401);
    upgrade(server.public, "/v1/play/tictactoe/socket").token(token).refused(401);
}

#[test]
fn an_issued_token_says_what_the_contract_names() {
    let server = shared();
    let user = server.guest();
    let header = part(&user.token, 0);
    assert_eq!(header["alg"], "RS256");
    assert_eq!(header["kid"], kid(&server).as_str());
    let claims = part(&user.token, 1);
    assert_eq!(claims["sub"], user.id.as_str());
    for name in ["iss", "aud", "sid", "jti"] {
        assert!(claims[name].as_str().is_some_and(|text| !text.is_empty()), "{claims}");
    }
    let seconds = |name: &str| claims[name].as_u64().unwrap();
    assert_eq!(seconds("exp") - seconds("nbf"), 15 * 60);
    let other = part(&server.guest().token, 1);
    assert_ne!(claims["jti"], other["jti"]);
}

#[test]
fn the_published_keys_verify_an_issued_token_and_hold_nothing_private() {
    let server = shared();
    let user = server.guest();
    let jwks = jwks(&server);
    let key = &jwks["keys"][0];
    assert_eq!(
        (&key["kty"], &key["alg"], &key["use"]),
        (&json!("RSA"), &json!("RS256"), &json!("sig"))
    );
    for private in ["d", "p", "q", "dp", "dq", "qi", "k"] {
        assert!(key.get(private).is_none(), "{private}");
    }
    let bytes = |name: &str| decoded(key[name].as_str().unwrap());
    let public = RS256PublicKey::from_components(&bytes("n"), &bytes("e")).unwrap();
    let claims = public.verify_token::<NoCustomClaims>(&user.token, None).unwrap();
    assert_eq!(claims.subject, Some(user.id));
}

#[test]
fn a_token_made_with_the_servers_key_is_good() {
    // The control of all refusals below: they are not refused for how they are made.
    let server = shared();
    let good = server.guest();
    let token = signed(&good.token, &json!({"jti": "another"}));
    server.call("GET", "/v1/users/me").token(&token).send().expect(200);
}

#[test]
fn unsigned_tokens_are_refused() {
    let server = shared();
    let good = server.guest().token;
    let claims = good.split('.').nth(1).unwrap();
    for alg in ["none", "None", "NONE", ""] {
        for header in [json!({"alg": alg, "kid": kid(&server)}), json!({ "alg": alg })] {
            let header = encoded(&header);
            assert_refused(&server, alg, &format!("{header}.{claims}."));
            assert_refused(&server, alg, &format!("{header}.{claims}.AAAA"));
            assert_refused(&server, alg, &format!("{header}.{claims}"));
        }
    }
}

#[test]
fn hs256_signed_with_the_public_key_is_refused() {
    let server = shared();
    let good = server.guest().token;
    let public = own_key().public_key();
    let pem = public.to_pem().unwrap();
    let secrets = [
        pem.trim_end().as_bytes().to_vec(),
        pem.into_bytes(),
        public.to_der().unwrap(),
        jwks(&server)["keys"][0]["n"].as_str().unwrap().as_bytes().to_vec(),
    ];
    for secret in secrets {
        let key = HS256Key::from_bytes(&secret).with_key_id(&kid(&server));
        let forged = key.authenticate(claims(&good, &json!({}))).unwrap();
        assert_refused(&server, "HS256", &forged);
    }
}

#[test]
fn claims_that_do_not_hold_are_refused() {
    let server = shared();
    let good = server.guest().token;
    let now = part(&good, 1)["iat"].as_u64().unwrap();
    for (what, changes) in [
        ("expired", json!({"exp": now - 1, "nbf": now - 1000, "iat": now - 1000})),
        ("not yet valid", json!({"nbf": now + 600})),
        ("another issuer", json!({"iss": "somebody-else"})),
        ("no issuer", json!({"iss": null})),
        ("another audience", json!({"aud": "somebody-else"})),
        ("no audience", json!({"aud": null})),
        ("no expiry", json!({"exp": null})),
        ("no subject", json!({"sub": null})),
        ("a subject that is no id", json!({"sub": "admin"})),
        ("no session", json!({"sid": null})),
    ] {
        assert_refused(&server, what, &signed(&good, &changes));
    }
}

#[test]
fn other_keys_are_refused() {
    let server = shared();
    let good = server.guest().token;
    let claims = || claims(&good, &json!({}));
    let unnamed = own_key().sign(claims()).unwrap();
    assert_refused(&server, "no kid", &unnamed);
    let unknown = own_key().with_key_id("unknown").sign(claims()).unwrap();
    assert_refused(&server, "unknown kid", &unknown);
    let edwards = Ed25519KeyPair::generate().with_key_id(&kid(&server));
    assert_refused(&server, "their key under our kid", &edwards.sign(claims()).unwrap());
}

#[test]
fn changed_and_cut_tokens_are_refused() {
    let server = shared();
    let good = server.guest().token;
    let parts: Vec<&str> = good.split('.').collect();
    let (header, payload, signature) = (parts[0], parts[1], parts[2]);
    let mut other = part(&good, 1);
    other["sub"] = json!(server.guest().id);
    let other = encoded(&other);
    for token in [
        format!("{header}.{other}.{signature}"),
        format!("{header}.{payload}"),
        format!("{header}.{payload}."),
        format!("{header}..{signature}"),
        format!(".{payload}.{signature}"),
        format!("{good}.{signature}"),
        format!("{good}A"),
        good[..good.len() - 1].to_owned(),
        good[..good.len() / 2].to_owned(),
        good[..1].to_owned(),
        "x".repeat(7000),
        "a.b.c".to_owned(),
    ] {
        assert_refused(&server, &token, &token);
    }
    for authorization in ["Bearer", "Bearer ", "Basic YTpi", &good, ""] {
        let call = server.call("GET", "/v1/users/me").header("Authorization", authorization);
        call.send().problem(401);
    }
    server.call("GET", "/v1/users/me").token(&good).send().expect(200);
}

#[test]
fn a_key_is_made_on_the_first_start_for_its_owner_alone() {
    let mut server = Server::with_only(&[]);
    let (user, first) = (server.guest(), jwks(&server));
    let private: Vec<PathBuf> = files(server.data.path())
        .into_iter()
        .filter(|path| {
            let bytes = std::fs::read(path).unwrap();
            bytes.windows(11).any(|window| window == b"PRIVATE KEY")
        })
        .collect();
    assert_eq!(private.is_empty(), on_postgres(), "there it is in the store");
    for path in private {
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{path:?} can be read by others: {mode:o}");
    }
    server.kill9();
    server.restart();
    assert_eq!(jwks(&server), first);
    server.get(&user, "/v1/users/me").expect(200);
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn keys_are_rotated_without_signing_anybody_out() {
    let mut server = Server::start();
    let early = server.guest();
    let elliptic = ES256KeyPair::generate().to_pem().unwrap();
    server.set("JWT_PRIVATE_KEY", &format!("{}\n{}", elliptic.trim(), signing_key()));
    server.kill9();
    server.restart();
    assert_eq!(jwks(&server)["keys"].as_array().unwrap().len(), 2);
    let late = server.guest();
    assert_eq!(part(&early.token, 0)["alg"], "RS256");
    assert_eq!(part(&late.token, 0)["alg"], "ES256");
    for user in [&early, &late] {
        server.get(user, "/v1/users/me").expect(200);
    }
    server.set("JWT_PRIVATE_KEY", &Ed25519KeyPair::generate().to_pem());
    server.kill9();
    server.restart();
    assert_eq!(part(&server.guest().token, 0)["alg"], "EdDSA");
    for user in [&early, &late] {
        server.get(user, "/v1/users/me").problem(401);
    }
    let renew = json!({"refresh_token": early.refresh});
    User::of(&server.call("POST", "/v1/sessions/refresh").json(&renew).send());
}
