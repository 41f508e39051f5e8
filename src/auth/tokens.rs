//! Access tokens: JWTs (RFC 7519) that say which user and which session, for some minutes.
//!
//! A token names its key (`kid`), the key names the algorithm, and nothing else in the token is
//! believed before the signature holds (RFC 8725). What was verified once is remembered by the
//! token's digest, so that a request with a token seen before costs no public-key arithmetic; its
//! expiry and its session's revocation are looked at each time.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use jwt_simple::JWTError;
use jwt_simple::prelude::{JWTClaims, Token, UnixTimeStamp, VerificationOptions};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::keys::SigningKeys;
use super::secrets::{digest, random_bytes};
use super::seen::Seen;
use crate::ids::{SessionId, UserId};

/// Longest token that is looked at; ours have some 720 bytes, and 1400 with the largest RSA keys and
/// the longest issuer.
pub const TOKEN_BYTES_MAX: usize = 2048;

/// How far another node's clock may run ahead: for `iat` and `nbf`. `exp` has no tolerance.
pub const CLOCK_SKEW_SECONDS: u64 = 5;

/// Whom a valid token speaks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claims {
    /// `sub`
    pub user: UserId,
    /// `sid`
    pub session: SessionId,
    /// `exp`: from this moment on the token is refused.
    pub expires_at: SystemTime,
}

/// Why a token is refused. The texts may be sent: they tell nothing that its holder cannot know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TokenError {
    /// Over [`TOKEN_BYTES_MAX`].
    #[error("the access token is longer than {TOKEN_BYTES_MAX} bytes")]
    TooLong,
    /// Not three parts of base64url and JSON: cut short, or no JWT at all.
    #[error("the access token is not a JWT")]
    Malformed,
    /// No `kid` in the header.
    #[error("the access token does not name its key (kid)")]
    NoKeyId,
    /// A `kid` that is none of ours.
    #[error("the access token names a key (kid) that is not known")]
    UnknownKey,
    /// Another `alg` than the key's: `none` and HS256 among them.
    #[error("the access token has not the algorithm of its key")]
    WrongAlgorithm,
    /// The signature is not the key's.
    #[error("the signature of the access token is wrong")]
    BadSignature,
    /// `exp` has passed.
    #[error("the access token has expired")]
    Expired,
    /// `nbf` or `iat` lie ahead.
    #[error("the access token is not valid yet")]
    NotYetValid,
    /// Another `iss`, or none.
    #[error("the access token is of another issuer")]
    WrongIssuer,
    /// Another `aud`, or none.
    #[error("the access token is for another audience")]
    WrongAudience,
    /// Signed by us, but without a proper `sub`, `sid` or `exp`.
    #[error("the access token lacks a claim (sub, sid or exp)")]
    MissingClaim,
    /// Its session was ended.
    #[error("the session of the access token has ended")]
    Revoked,
}

/// Issues and verifies the access tokens of one issuer for one audience.
pub struct Tokens {
    keys: SigningKeys,
    issuer: String,
    audience: String,
    access_lifetime: Duration,
    seen: Mutex<Seen>,
}

/// The claim that RFC 7519 does not have.
#[derive(Serialize, Deserialize)]
struct SessionClaim {
    sid: Option<SessionId>,
}

impl Tokens {
    /// Tokens of `issuer` for `audience` that live for `access_lifetime`, in whole seconds.
    pub fn new(
        keys: SigningKeys,
        issuer: impl Into<String>,
        audience: impl Into<String>,
        access_lifetime: Duration,
    ) -> Self {
        Self {
            keys,
            issuer: issuer.into(),
            audience: audience.into(),
            access_lifetime,
            seen: Mutex::new(Seen::new()),
        }
    }

    /// The keys, for the JWK set.
    pub fn keys(&self) -> &SigningKeys {
        &self.keys
    }

    /// How long a token lives after it was issued.
    pub fn access_lifetime(&self) -> Duration {
        self.access_lifetime
    }

    /// A new token. It costs a private-key operation (milliseconds with RSA).
    pub fn issue(&self, user: UserId, session: SessionId, now: SystemTime) -> String {
        let issued_at = unix_time(now);
        let expires_at =
            UnixTimeStamp::from_secs(issued_at.as_secs() + self.access_lifetime.as_secs());
        let token = self.keys.sign(JWTClaims {
            issued_at: Some(issued_at),
            expires_at: Some(expires_at),
            invalid_before: Some(issued_at),
            issuer: Some(self.issuer.clone()),
            subject: Some(user.to_string()),
            audiences: Some((&self.audience).into()),
            jwt_id: Some(uuid::Uuid::from_bytes(random_bytes()).simple().to_string()),
            nonce: None,
            custom: SessionClaim { sid: Some(session) },
        });
        // Its first use will come soon and need not cost a verification.
        let claims = Claims { user, session, expires_at: system_time(expires_at) };
        self.seen().remember(digest(&token), claims, now, self.access_lifetime);
        token
    }

    /// Whom `token` speaks for, if it is ours and good at `now`.
    pub fn verify(&self, token: &str, now: SystemTime) -> Result<Claims, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong);
        }
        let digest = digest(token);
        let known = self.seen().claims(&digest);
        let claims = match known {
            Some(claims) => claims,
            None => self.verify_signed(token, now)?,
        };
        let mut seen = self.seen();
        if now >= claims.expires_at {
            seen.forget(&digest);
            return Err(TokenError::Expired);
        }
        seen.check(&claims)?;
        if known.is_none() {
            seen.remember(digest, claims, now, self.access_lifetime);
        }
        Ok(claims)
    }

    /// Whether what a token said when it was verified holds at `now`.
    pub fn recheck(&self, claims: &Claims, now: SystemTime) -> Result<(), TokenError> {
        if now >= claims.expires_at {
            return Err(TokenError::Expired);
        }
        self.seen().check(claims)
    }

    /// Refuses the tokens of a session from now on. `until` is when the last of them expires: no
    /// earlier than now and [`Self::access_lifetime`]. Whether it was not refused before.
    pub fn revoke(&self, session: SessionId, until: SystemTime) -> bool {
        self.seen().revoke(session, until)
    }

    /// Everything that the token itself can tell, its exact expiry and revocation left out.
    fn verify_signed(&self, token: &str, now: SystemTime) -> Result<Claims, TokenError> {
        let header = Token::decode_metadata(token).map_err(|_| TokenError::Malformed)?;
        let kid = header.key_id().ok_or(TokenError::NoKeyId)?;
        let options = VerificationOptions {
            allowed_issuers: Some(HashSet::from([self.issuer.clone()])),
            allowed_audiences: Some(HashSet::from([self.audience.clone()])),
            time_tolerance: Some(jwt_simple::prelude::Duration::from_secs(CLOCK_SKEW_SECONDS)),
            max_token_length: Some(TOKEN_BYTES_MAX),
            artificial_time: Some(unix_time(now)),
            ..VerificationOptions::default()
        };
        let claims: JWTClaims<SessionClaim> = self
            .keys
            .verify(kid, token, options)
            .ok_or(TokenError::UnknownKey)?
            .map_err(|error| refusal(&error))?;
        Ok(Claims {
            user: claims
                .subject
                .and_then(|subject| subject.parse().ok())
                .ok_or(TokenError::MissingClaim)?,
            session: claims.custom.sid.ok_or(TokenError::MissingClaim)?,
            expires_at: claims.expires_at.map(system_time).ok_or(TokenError::MissingClaim)?,
        })
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        // Whatever panicked, each of its changes is whole by itself.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refusal(error: &jwt_simple::Error) -> TokenError {
    match error.downcast_ref() {
        Some(JWTError::AlgorithmMismatch) => TokenError::WrongAlgorithm,
        Some(JWTError::InvalidSignature) => TokenError::BadSignature,
        Some(JWTError::TokenHasExpired) => TokenError::Expired,
        Some(JWTError::TokenNotValidYet | JWTError::ClockDrift) => TokenError::NotYetValid,
        Some(JWTError::RequiredIssuerMismatch | JWTError::RequiredIssuerMissing) => {
            TokenError::WrongIssuer
        }
        Some(JWTError::RequiredAudienceMismatch | JWTError::RequiredAudienceMissing) => {
            TokenError::WrongAudience
        }
        _ => TokenError::Malformed,
    }
}

/// Seconds since 1970; a clock before that reads as 1970.
fn unix_time(at: SystemTime) -> UnixTimeStamp {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    UnixTimeStamp::from_secs(since.as_secs())
}

fn system_time(at: UnixTimeStamp) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(at.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use jwt_simple::prelude::{
        Base64UrlSafeNoPadding, HS256Key, MACLike as _, RS256KeyPair, RSAKeyPairLike as _,
    };
    use jwt_simple::reexports::ct_codecs::{Decoder as _, Encoder as _};
    use serde_json::{Value, json};

    const RSA: &str = include_str!("testdata/rsa-pkcs8.pem");
    const P256: &str = include_str!("testdata/p256.pem");
    const ED25519: &str = include_str!("testdata/ed25519.pem");
    const NOW_SECONDS: u64 = 1_800_000_000;
    const LIFETIME: Duration = Duration::from_secs(900);

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn tokens_with(pem: &str) -> Tokens {
        Tokens::new(SigningKeys::from_pem(pem).unwrap(), "here", "players", LIFETIME)
    }

    /// One who has verified nothing yet, as after a restart.
    fn verify(token: &str, now_seconds: u64) -> Result<Claims, TokenError> {
        tokens_with(RSA).verify(token, at(now_seconds))
    }

    fn good_claims() -> JWTClaims<SessionClaim> {
        let now = UnixTimeStamp::from_secs(NOW_SECONDS);
        JWTClaims {
            issued_at: Some(now),
            expires_at: Some(now + jwt_simple::prelude::Duration::from_secs(900)),
            invalid_before: Some(now),
            issuer: Some("here".into()),
            subject: Some(UserId::new().to_string()),
            audiences: Some("players".into()),
            jwt_id: None,
            nonce: None,
            custom: SessionClaim { sid: Some(SessionId::new()) },
        }
    }

    /// Signed by the right key, with claims changed by `change`.
    fn signed(change: impl FnOnce(&mut JWTClaims<SessionClaim>)) -> String {
        let mut claims = good_claims();
        change(&mut claims);
        SigningKeys::from_pem(RSA).unwrap().sign(claims)
    }

    fn kid() -> String {
        let jwks: Value =
            serde_json::from_str(&SigningKeys::from_pem(RSA).unwrap().jwks()).unwrap();
        jwks["keys"][0]["kid"].as_str().unwrap().to_owned()
    }

    fn base64(json: &Value) -> String {
        Base64UrlSafeNoPadding::encode_to_string(json.to_string()).unwrap()
    }

    fn part(token: &str, index: usize) -> Value {
        let part = token.split('.').nth(index).unwrap();
        let bytes = Base64UrlSafeNoPadding::decode_to_vec(part, None).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    #[test]
    fn an_issued_token_says_what_the_contract_names() {
        let (user, session) = (UserId::new(), SessionId::new());
        let token = tokens_with(RSA).issue(user, session, at(NOW_SECONDS));
        assert_eq!(part(&token, 0), json!({"alg": "RS256", "typ": "JWT", "kid": kid()}));
        let mut claims = part(&token, 1);
        let jti = claims.as_object_mut().unwrap().remove("jti").unwrap();
        assert_eq!(jti.as_str().unwrap().len(), 32);
        assert_eq!(
            claims,
            json!({
                "iss": "here", "aud": "players", "sub": user.to_string(),
                "sid": session.to_string(), "iat": NOW_SECONDS, "nbf": NOW_SECONDS,
                "exp": NOW_SECONDS + 900,
            })
        );
    }

    #[test]
    fn each_kind_of_key_signs_and_another_node_verifies() {
        for (pem, algorithm) in [(RSA, "RS256"), (P256, "ES256"), (ED25519, "EdDSA")] {
            let (user, session) = (UserId::new(), SessionId::new());
            let token = tokens_with(pem).issue(user, session, at(NOW_SECONDS));
            assert_eq!(part(&token, 0)["alg"], algorithm);
            assert_eq!(
                tokens_with(pem).verify(&token, at(NOW_SECONDS)),
                Ok(Claims { user, session, expires_at: at(NOW_SECONDS + 900) })
            );
        }
    }

    #[test]
    fn keys_are_rotated_without_signing_anybody_out() {
        let old = tokens_with(RSA).issue(UserId::new(), SessionId::new(), at(NOW_SECONDS));
        let rotated = tokens_with(&format!("{P256}{RSA}"));
        assert!(rotated.verify(&old, at(NOW_SECONDS)).is_ok());
        let new = rotated.issue(UserId::new(), SessionId::new(), at(NOW_SECONDS));
        assert_eq!(part(&new, 0)["alg"], "ES256");
        assert_eq!(verify(&new, NOW_SECONDS), Err(TokenError::UnknownKey));
    }

    #[test]
    fn alg_none_is_refused() {
        let good = signed(|_| ());
        let header = base64(&json!({"alg": "none", "typ": "JWT", "kid": kid()}));
        let claims = good.split('.').nth(1).unwrap();
        for forged in [format!("{header}.{claims}."), format!("{header}.{claims}.AAAA")] {
            assert_eq!(verify(&forged, NOW_SECONDS), Err(TokenError::WrongAlgorithm));
        }
    }

    #[test]
    fn hs256_with_the_public_key_as_its_secret_is_refused() {
        let public = RS256KeyPair::from_pem(RSA).unwrap().public_key();
        for secret in [public.to_pem().unwrap().into_bytes(), public.to_der().unwrap()] {
            let forged = HS256Key::from_bytes(&secret)
                .with_key_id(&kid())
                .authenticate(good_claims())
                .unwrap();
            assert_eq!(verify(&forged, NOW_SECONDS), Err(TokenError::WrongAlgorithm));
        }
    }

    #[test]
    fn a_missing_or_unknown_kid_is_refused() {
        let key = RS256KeyPair::from_pem(RSA).unwrap();
        let nameless = key.sign(good_claims()).unwrap();
        assert_eq!(verify(&nameless, NOW_SECONDS), Err(TokenError::NoKeyId));
        let renamed = key.with_key_id("other").sign(good_claims()).unwrap();
        assert_eq!(verify(&renamed, NOW_SECONDS), Err(TokenError::UnknownKey));
    }

    #[test]
    fn another_key_under_our_kid_is_refused() {
        let theirs = RS256KeyPair::from_pem(include_str!("testdata/rsa-pkcs1.pem")).unwrap();
        let forged = theirs.with_key_id(&kid()).sign(good_claims()).unwrap();
        assert_eq!(verify(&forged, NOW_SECONDS), Err(TokenError::BadSignature));
    }

    #[test]
    fn a_changed_claim_is_refused() {
        let good = signed(|_| ());
        let mut claims = part(&good, 1);
        claims["sub"] = json!(UserId::new().to_string());
        let mut parts: Vec<&str> = good.split('.').collect();
        let forged = base64(&claims);
        parts[1] = &forged;
        assert_eq!(verify(&parts.join("."), NOW_SECONDS), Err(TokenError::BadSignature));
    }

    #[test]
    fn a_token_cut_short_anywhere_is_refused() {
        let good = signed(|_| ());
        let node = tokens_with(RSA);
        for length in 0..good.len() {
            assert!(node.verify(&good[..length], at(NOW_SECONDS)).is_err(), "{length}");
        }
        assert!(node.verify(&good, at(NOW_SECONDS)).is_ok());
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for text in ["", ".", "..", "...", "a.b.c", "e30.e30.e30", "Bearer", "ÿ.ÿ.ÿ", "\0"] {
            let refused = verify(text, NOW_SECONDS).unwrap_err();
            assert!(matches!(refused, TokenError::Malformed | TokenError::NoKeyId), "{text:?}");
        }
        let long = "a".repeat(TOKEN_BYTES_MAX + 1);
        assert_eq!(verify(&long, NOW_SECONDS), Err(TokenError::TooLong));
    }

    #[test]
    fn a_token_ends_at_its_expiry_and_not_a_second_later() {
        let token = signed(|_| ());
        assert!(verify(&token, NOW_SECONDS + 899).is_ok());
        for late in [900, 901, 905, 906, 100_000] {
            assert_eq!(verify(&token, NOW_SECONDS + late), Err(TokenError::Expired), "{late}");
        }
    }

    #[test]
    fn the_future_begins_after_the_skew() {
        let token = signed(|_| ());
        assert!(verify(&token, NOW_SECONDS - CLOCK_SKEW_SECONDS).is_ok());
        let early = NOW_SECONDS - CLOCK_SKEW_SECONDS - 1;
        assert_eq!(verify(&token, early), Err(TokenError::NotYetValid));
        let later = UnixTimeStamp::from_secs(NOW_SECONDS + 60);
        let token = signed(|claims| claims.invalid_before = Some(later));
        assert_eq!(verify(&token, NOW_SECONDS), Err(TokenError::NotYetValid));
    }

    #[test]
    fn other_issuers_and_audiences_are_refused() {
        for issuer in [None, Some("there".to_owned())] {
            let token = signed(|claims| claims.issuer = issuer);
            assert_eq!(verify(&token, NOW_SECONDS), Err(TokenError::WrongIssuer));
        }
        for audience in [None, Some("others".into())] {
            let token = signed(|claims| claims.audiences = audience);
            assert_eq!(verify(&token, NOW_SECONDS), Err(TokenError::WrongAudience));
        }
    }

    #[test]
    fn a_token_without_the_claims_we_need_is_refused() {
        for token in [
            signed(|claims| claims.expires_at = None),
            signed(|claims| claims.subject = None),
            signed(|claims| claims.subject = Some("admin".into())),
            signed(|claims| claims.custom.sid = None),
        ] {
            assert_eq!(verify(&token, NOW_SECONDS), Err(TokenError::MissingClaim));
        }
    }

    #[test]
    fn a_token_seen_before_needs_no_key() {
        let token = signed(|_| ());
        let mut node = tokens_with(RSA);
        let first = node.verify(&token, at(NOW_SECONDS));
        node.keys = SigningKeys::from_pem(P256).unwrap();
        assert!(first.is_ok());
        assert_eq!(node.verify(&token, at(NOW_SECONDS + 1)), first);
        let unseen = signed(|_| ());
        assert_eq!(node.verify(&unseen, at(NOW_SECONDS)), Err(TokenError::UnknownKey));
        assert_eq!(node.verify(&token, at(NOW_SECONDS + 900)), Err(TokenError::Expired));
        // It was forgotten then, so it is looked at afresh even if the clock is set back.
        assert_eq!(node.verify(&token, at(NOW_SECONDS)), Err(TokenError::UnknownKey));
    }

    #[test]
    fn a_token_issued_here_needs_no_key() {
        let mut node = tokens_with(RSA);
        let token = node.issue(UserId::new(), SessionId::new(), at(NOW_SECONDS));
        node.keys = SigningKeys::from_pem(P256).unwrap();
        assert!(node.verify(&token, at(NOW_SECONDS)).is_ok());
    }

    #[test]
    fn a_revoked_session_is_refused_whether_its_token_was_seen_or_not() {
        let node = tokens_with(RSA);
        let (ended, other) = (SessionId::new(), SessionId::new());
        let seen = node.issue(UserId::new(), ended, at(NOW_SECONDS));
        let unseen = tokens_with(RSA).issue(UserId::new(), ended, at(NOW_SECONDS));
        let others = node.issue(UserId::new(), other, at(NOW_SECONDS));
        assert!(node.verify(&seen, at(NOW_SECONDS)).is_ok());
        node.revoke(ended, at(NOW_SECONDS) + node.access_lifetime());
        for token in [&seen, &unseen] {
            assert_eq!(node.verify(token, at(NOW_SECONDS + 1)), Err(TokenError::Revoked));
            assert_eq!(node.verify(token, at(NOW_SECONDS + 899)), Err(TokenError::Revoked));
            assert_eq!(node.verify(token, at(NOW_SECONDS + 900)), Err(TokenError::Expired));
        }
        assert!(node.verify(&others, at(NOW_SECONDS + 1)).is_ok());
    }

    #[test]
    fn a_refused_token_is_not_remembered() {
        let node = tokens_with(RSA);
        let forged = signed(|claims| claims.issuer = Some("there".into()));
        for _ in 0..2 {
            assert_eq!(node.verify(&forged, at(NOW_SECONDS)), Err(TokenError::WrongIssuer));
        }
    }
}
