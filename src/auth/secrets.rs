//! Random tokens that their holder shows again: refresh tokens and socket tickets.
//!
//! The server stores their digest alone. SHA-256 without salt or stretching is enough, since there
//! are 2^256 of them to guess from; and a digest can be looked up in an index without its time
//! telling anything of the token.

use std::fmt;

use jwt_simple::prelude::Base64UrlSafeNoPadding;
use jwt_simple::reexports::ct_codecs::Encoder as _;
use sha2::{Digest as _, Sha256};

const SECRET_BYTES: usize = 32;

/// A random token of 256 bits: 43 characters of base64url (RFC 4648, section 5).
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// A new one from the operating system's generator.
    pub fn random() -> Self {
        let bytes: [u8; SECRET_BYTES] = random_bytes();
        Self(Base64UrlSafeNoPadding::encode_to_string(bytes).expect("32 bytes can be encoded"))
    }

    /// What the holder is given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What is stored: see [`digest`].
    pub fn digest(&self) -> [u8; 32] {
        digest(&self.0)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// SHA-256 of a token as its holder shows it.
pub fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

/// Random bytes from the operating system: salts, seeds, ids of tokens.
///
/// # Panics
/// Where the operating system has none: nothing can be secured then.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_differ_and_fit_into_an_address() {
        let (one, other) = (Secret::random(), Secret::random());
        assert_ne!(one, other);
        assert_eq!(one.as_str().len(), 43);
        assert!(one.as_str().bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)));
    }

    #[test]
    fn the_digest_is_sha_256() {
        // FIPS 180-2, appendix B.1.
        assert_eq!(digest("abc")[..4], [0xba, 0x78, 0x16, 0xbf]);
        let secret = Secret::random();
        assert_eq!(secret.digest(), digest(secret.as_str()));
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", Secret::random()), "Secret(…)");
    }
}
