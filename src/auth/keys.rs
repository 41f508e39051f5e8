//! The keys of access tokens.
//!
//! They come as PEM text that holds one key or several: the first private one signs, and every
//! one, private or public, verifies. So keys are rotated: put the new private key first and leave
//! the old one in its place until the last token it signed has expired.
//!
//! The algorithm belongs to the key (RFC 8725, section 3.1): RSA signs RS256, P-256 ES256 and
//! Ed25519 `EdDSA`. A key's id is its thumbprint (RFC 7638), so that every node and every start
//! names it alike.

use std::fmt;

use jwt_simple::JWTError;
use jwt_simple::prelude::{
    ECDSAP256KeyPairLike as _, ECDSAP256PublicKeyLike as _, ES256KeyPair, ES256PublicKey,
    Ed25519KeyPair, Ed25519PublicKey, EdDSAKeyPairLike as _, EdDSAPublicKeyLike as _, JWTClaims,
    RS256KeyPair, RS256PublicKey, RSAKeyPairLike as _, RSAPublicKeyLike as _, VerificationOptions,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// Most keys at a time: more than any rotation needs.
pub const KEYS_MAX: usize = 16;

/// Bits of a generated RSA key; NIST SP 800-131A asks for 2048 at least.
const RSA_BITS: usize = 2048;

/// Why a PEM text gives no keys. Never holds any of the text but its labels.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KeyError {
    /// No `-----BEGIN …-----` line.
    #[error("no PEM block")]
    Empty,
    /// A block without its last line.
    #[error("PEM block {number} ({label}) has no END line")]
    CutShort {
        /// Counted from 1.
        number: usize,
        /// What the block says it is.
        label: String,
    },
    /// A block of a kind that is not read.
    #[error(
        "PEM block {number} is {label}; keys are read as PRIVATE KEY (PKCS#8, not encrypted), \
         RSA PRIVATE KEY, PUBLIC KEY or RSA PUBLIC KEY: `openssl pkcs8 -topk8 -nocrypt` converts"
    )]
    UnknownLabel {
        /// Counted from 1.
        number: usize,
        /// What the block says it is.
        label: String,
    },
    /// An RSA key that is too short to be safe.
    #[error("PEM block {number} is an RSA key of less than 2048 bits")]
    WeakRsa {
        /// Counted from 1.
        number: usize,
    },
    /// A block that no algorithm reads.
    #[error(
        "PEM block {number} ({label}) is no sound key of RSA (2048 to 4096 bits), P-256 or Ed25519"
    )]
    Unusable {
        /// Counted from 1.
        number: usize,
        /// What the block says it is.
        label: String,
    },
    /// Public keys alone.
    #[error("no private key to sign with")]
    NoPrivateKey,
    /// More than [`KEYS_MAX`].
    #[error("more than {KEYS_MAX} keys")]
    TooMany,
}

/// One private key that signs, and all keys that verify.
pub struct SigningKeys {
    signer: PrivateKey,
    verifiers: Vec<Verifier>,
}

struct Verifier {
    kid: String,
    key: PublicKey,
}

impl SigningKeys {
    /// Reads all keys of a PEM text (RFC 7468): PKCS#8 and SPKI of every algorithm, PKCS#1 of RSA.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let blocks = blocks(text)?;
        let mut signer = None;
        let mut verifiers: Vec<Verifier> = Vec::with_capacity(blocks.len());
        for (index, block) in blocks.iter().enumerate() {
            let key = block.parse(index + 1)?;
            let public = key.public();
            let kid = public.thumbprint();
            if let (Key::Private(key), None) = (key, &signer) {
                signer = Some(key.with_kid(&kid));
            }
            if verifiers.iter().all(|known| known.kid != kid) {
                verifiers.push(Verifier { key: public.with_kid(&kid), kid });
            }
        }
        if verifiers.is_empty() {
            return Err(KeyError::Empty);
        }
        Ok(Self { signer: signer.ok_or(KeyError::NoPrivateKey)?, verifiers })
    }

    /// A new RSA key of 2048 bits as PKCS#8 PEM. Takes from a tenth of a second to seconds.
    pub fn generate_rsa_pem() -> String {
        RS256KeyPair::generate(RSA_BITS)
            .and_then(|key| key.to_pem())
            .expect("an RSA key of a usual size can be made and written")
    }

    /// The public keys as a JWK set (RFC 7517, section 5).
    pub fn jwks(&self) -> String {
        let keys: Vec<String> = self.verifiers.iter().map(|known| known.key.to_jwk()).collect();
        format!(r#"{{"keys":[{}]}}"#, keys.join(","))
    }

    /// Signs `claims`; the header names the key and its algorithm.
    pub(super) fn sign<C: Serialize>(&self, claims: JWTClaims<C>) -> String {
        match &self.signer {
            PrivateKey::Rs256(key) => key.sign(claims),
            PrivateKey::Es256(key) => key.sign(claims),
            PrivateKey::EdDsa(key) => key.sign(claims),
        }
        .expect("a key that was checked when it was read can sign")
    }

    /// Checks a token against the key named `kid`, with that key's algorithm; `None` if there is
    /// no such key.
    pub(super) fn verify<C: DeserializeOwned>(
        &self,
        kid: &str,
        token: &str,
        options: VerificationOptions,
    ) -> Option<Result<JWTClaims<C>, jwt_simple::Error>> {
        let known = self.verifiers.iter().find(|known| known.kid == kid)?;
        Some(match &known.key {
            PublicKey::Rs256(key) => key.verify_token(token, Some(options)),
            PublicKey::Es256(key) => key.verify_token(token, Some(options)),
            PublicKey::EdDsa(key) => key.verify_token(token, Some(options)),
        })
    }
}

impl fmt::Debug for SigningKeys {
    /// The ids of the keys and nothing of the keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.verifiers.iter().map(|known| &known.kid)).finish()
    }
}

enum Key {
    Private(PrivateKey),
    Public(PublicKey),
}

#[expect(clippy::large_enum_variant, reason = "there are a few of them, for good")]
enum PrivateKey {
    Rs256(RS256KeyPair),
    Es256(ES256KeyPair),
    EdDsa(Ed25519KeyPair),
}

#[derive(Clone)]
#[expect(clippy::large_enum_variant, reason = "there are a few of them, for good")]
enum PublicKey {
    Rs256(RS256PublicKey),
    Es256(ES256PublicKey),
    EdDsa(Ed25519PublicKey),
}

impl Key {
    fn public(&self) -> PublicKey {
        match self {
            Self::Public(key) => key.clone(),
            Self::Private(PrivateKey::Rs256(key)) => PublicKey::Rs256(key.public_key()),
            Self::Private(PrivateKey::Es256(key)) => PublicKey::Es256(key.public_key()),
            Self::Private(PrivateKey::EdDsa(key)) => PublicKey::EdDsa(key.public_key()),
        }
    }
}

impl PrivateKey {
    fn with_kid(self, kid: &str) -> Self {
        match self {
            Self::Rs256(key) => Self::Rs256(key.with_key_id(kid)),
            Self::Es256(key) => Self::Es256(key.with_key_id(kid)),
            Self::EdDsa(key) => Self::EdDsa(key.with_key_id(kid)),
        }
    }
}

impl PublicKey {
    fn thumbprint(&self) -> String {
        match self {
            Self::Rs256(key) => key.jwk_thumbprint(),
            Self::Es256(key) => key.jwk_thumbprint(),
            Self::EdDsa(key) => key.jwk_thumbprint(),
        }
    }

    fn with_kid(self, kid: &str) -> Self {
        match self {
            Self::Rs256(key) => Self::Rs256(key.with_key_id(kid)),
            Self::Es256(key) => Self::Es256(key.with_key_id(kid)),
            Self::EdDsa(key) => Self::EdDsa(key.with_key_id(kid)),
        }
    }

    /// With `use`, `alg` and `kid`.
    fn to_jwk(&self) -> String {
        match self {
            Self::Rs256(key) => key.to_jwk(),
            Self::Es256(key) => key.to_jwk(),
            Self::EdDsa(key) => key.to_jwk(),
        }
    }
}

/// One PEM block.
struct Block {
    label: String,
    pem: String,
}

impl Block {
    /// Its key. PKCS#8 and SPKI name their algorithm inside, so each is offered to all three.
    fn parse(&self, number: usize) -> Result<Key, KeyError> {
        let pem = self.pem.as_str();
        match self.label.as_str() {
            "PRIVATE KEY" | "RSA PRIVATE KEY" => match RS256KeyPair::from_pem(pem) {
                Ok(key) => Some(PrivateKey::Rs256(key)),
                Err(error) if is_weak(&error) => return Err(KeyError::WeakRsa { number }),
                Err(_) => ES256KeyPair::from_pem(pem)
                    .map(PrivateKey::Es256)
                    .or_else(|_| Ed25519KeyPair::from_pem(pem).map(PrivateKey::EdDsa))
                    .ok(),
            }
            .map(Key::Private),
            "PUBLIC KEY" | "RSA PUBLIC KEY" => match RS256PublicKey::from_pem(pem) {
                Ok(key) => Some(PublicKey::Rs256(key)),
                Err(error) if is_weak(&error) => return Err(KeyError::WeakRsa { number }),
                Err(_) => ES256PublicKey::from_pem(pem)
                    .map(PublicKey::Es256)
                    .or_else(|_| Ed25519PublicKey::from_pem(pem).map(PublicKey::EdDsa))
                    .ok(),
            }
            .map(Key::Public),
            _ => return Err(KeyError::UnknownLabel { number, label: self.label.clone() }),
        }
        .ok_or_else(|| KeyError::Unusable { number, label: self.label.clone() })
    }
}

fn is_weak(error: &jwt_simple::Error) -> bool {
    matches!(error.downcast_ref(), Some(JWTError::WeakKey))
}

/// The PEM blocks of a text, in order; what stands between them is passed over. Lines are trimmed,
/// since PEM in an environment file is often indented.
fn blocks(text: &str) -> Result<Vec<Block>, KeyError> {
    let mut blocks = Vec::new();
    let mut lines = text.lines().map(str::trim);
    while let Some(begin) = lines.next() {
        let Some(label) =
            begin.strip_prefix("-----BEGIN ").and_then(|rest| rest.strip_suffix("-----"))
        else {
            continue;
        };
        if blocks.len() == KEYS_MAX {
            return Err(KeyError::TooMany);
        }
        let end = format!("-----END {label}-----");
        let mut pem = format!("{begin}\n");
        loop {
            let line = lines.next().ok_or_else(|| KeyError::CutShort {
                number: blocks.len() + 1,
                label: label.to_owned(),
            })?;
            pem.push_str(line);
            pem.push('\n');
            if line == end {
                break;
            }
        }
        blocks.push(Block { label: label.to_owned(), pem });
    }
    Ok(blocks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    const RSA: &str = include_str!("testdata/rsa-pkcs8.pem");
    const P256: &str = include_str!("testdata/p256.pem");
    const P256_PUBLIC: &str = include_str!("testdata/p256-public.pem");
    const ED25519: &str = include_str!("testdata/ed25519.pem");

    fn jwks(pem: &str) -> Vec<Value> {
        let set: Value = serde_json::from_str(&SigningKeys::from_pem(pem).unwrap().jwks()).unwrap();
        set["keys"].as_array().unwrap().clone()
    }

    fn error(pem: &str) -> KeyError {
        SigningKeys::from_pem(pem).unwrap_err()
    }

    #[test]
    fn the_keys_that_openssl_writes_are_read() {
        for (pem, kty, alg) in [
            (RSA, "RSA", "RS256"),
            (include_str!("testdata/rsa-pkcs1.pem"), "RSA", "RS256"),
            (P256, "EC", "ES256"),
            (ED25519, "OKP", "EdDSA"),
        ] {
            let keys = jwks(pem);
            assert_eq!(keys.len(), 1);
            assert_eq!((&keys[0]["kty"], &keys[0]["alg"]), (&kty.into(), &alg.into()));
            assert_eq!(keys[0]["use"], "sig");
            assert_eq!(keys[0]["kid"].as_str().unwrap().len(), 43);
            assert!(keys[0].get("d").is_none(), "the private part is never in the set");
        }
    }

    #[test]
    fn a_public_key_verifies_under_the_kid_of_its_private_one() {
        for (private, public) in [
            (include_str!("testdata/rsa-pkcs1.pem"), include_str!("testdata/rsa-public.pem")),
            (include_str!("testdata/rsa-pkcs1.pem"), include_str!("testdata/rsa-pkcs1-public.pem")),
            (P256, P256_PUBLIC),
            (ED25519, include_str!("testdata/ed25519-public.pem")),
        ] {
            assert_eq!(jwks(private), jwks(&format!("{private}{public}")), "known twice");
            let signer = include_str!("testdata/rsa-pkcs8.pem");
            assert_eq!(jwks(&format!("{public}{signer}"))[0], jwks(private)[0]);
        }
    }

    #[test]
    fn the_kid_is_the_thumbprint_of_rfc_7638() {
        // RFC 8037, appendices A.1 and A.3: the key as PKCS#8, and its thumbprint.
        let pem = "-----BEGIN PRIVATE KEY-----\n\
                   MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n\
                   -----END PRIVATE KEY-----\n";
        assert_eq!(jwks(pem)[0]["x"], "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
        assert_eq!(jwks(pem)[0]["kid"], "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }

    #[test]
    fn the_first_private_key_signs_and_the_order_is_kept() {
        let keys = SigningKeys::from_pem(&format!("{P256_PUBLIC}{ED25519}{RSA}")).unwrap();
        assert!(matches!(keys.signer, PrivateKey::EdDsa(_)));
        let set: Value = serde_json::from_str(&keys.jwks()).unwrap();
        let algorithms: Vec<_> =
            set["keys"].as_array().unwrap().iter().map(|key| key["alg"].clone()).collect();
        assert_eq!(algorithms, ["ES256", "EdDSA", "RS256"]);
    }

    #[test]
    fn a_generated_key_is_read_again() {
        let pem = SigningKeys::generate_rsa_pem();
        assert!(pem.starts_with("-----BEGIN PRIVATE KEY-----\n"), "PKCS#8");
        assert_eq!(jwks(&pem)[0]["alg"], "RS256");
    }

    #[test]
    fn indented_text_with_comments_and_windows_line_ends_is_read() {
        let pem = format!("the key of 2031\n\n{ED25519}\n{P256}").replace('\n', "\r\n    ");
        assert_eq!(jwks(&pem).len(), 2);
    }

    #[test]
    fn what_gives_no_key_says_why() {
        assert_eq!(error(""), KeyError::Empty);
        assert_eq!(error("hunter2"), KeyError::Empty);
        assert_eq!(error(P256_PUBLIC), KeyError::NoPrivateKey);
        assert_eq!(error(include_str!("testdata/rsa-1024.pem")), KeyError::WeakRsa { number: 1 });
        let label = || "PRIVATE KEY".to_owned();
        let half = &RSA[..RSA.len() / 2];
        assert_eq!(error(half), KeyError::CutShort { number: 1, label: label() });
        let p384 = format!("{RSA}{}", include_str!("testdata/p384.pem"));
        assert_eq!(error(&p384), KeyError::Unusable { number: 2, label: label() });
        let broken = ED25519.replacen("MC4", "MC5", 1);
        assert_eq!(error(&broken), KeyError::Unusable { number: 1, label: label() });
        assert!(matches!(
            error(include_str!("testdata/p256-sec1.pem")),
            KeyError::UnknownLabel { number: 1, .. }
        ));
        assert_eq!(error(&ED25519.repeat(KEYS_MAX + 1)), KeyError::TooMany);
    }

    #[test]
    fn debug_shows_ids_alone() {
        let keys = SigningKeys::from_pem(ED25519).unwrap();
        assert_eq!(format!("{keys:?}"), format!("[{}]", jwks(ED25519)[0]["kid"]));
    }
}
