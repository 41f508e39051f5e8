//! Password hashing, so that a stolen store does not give the passwords away.
//!
//! Argon2id (RFC 9106) with the parameters of OWASP's Password Storage Cheat Sheet: 19 MiB of
//! memory, two passes, one lane. Each call takes tens of milliseconds and those 19 MiB: callers
//! run it on a bounded pool, never on a thread that serves sockets.

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{CustomizedPasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};

/// Bytes of a salt: what the PHC string format recommends.
pub const SALT_BYTES: usize = 16;

const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// The PHC string of `password`. The salt must be random and is used once.
pub fn hash(password: &str, salt: [u8; SALT_BYTES]) -> String {
    let params =
        Params::new(MEMORY_KIB, PASSES, LANES, None).expect("OWASP's parameters are valid");
    let phc: PasswordHash = Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone())
        .hash_password_customized(password.as_bytes(), &salt, None, None, params)
        .expect("a salt of 16 bytes and a password under 4 GiB are valid");
    phc.to_string()
}

/// Whether `password` is the one that `phc` was made of, whatever parameters `phc` names: an older
/// hash stays good when ours grow. A `phc` that is not one answers no.
pub fn verify(password: &str, phc: &str) -> bool {
    PasswordHash::new(phc)
        .is_ok_and(|phc| Argon2::default().verify_password(password.as_bytes(), &phc).is_ok())
}

/// A hash with our parameters that no known password has (its output is all zeros). Verifying
/// against it makes an unknown user cost the same time as a wrong password.
pub const fn decoy() -> &'static str {
    "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_known_again_and_another_is_not() {
        let phc = hash("correct horse", [7; SALT_BYTES]);
        assert!(verify("correct horse", &phc));
        assert!(!verify("correct horsf", &phc));
        assert!(!verify("", &phc));
    }

    #[test]
    fn the_salt_changes_the_hash() {
        assert_ne!(hash("same", [1; SALT_BYTES]), hash("same", [2; SALT_BYTES]));
    }

    #[test]
    fn the_decoy_costs_what_a_real_hash_costs() {
        let phc = hash("anything", [0; SALT_BYTES]);
        let cost = |phc: &str| phc.rsplitn(3, '$').last().map(str::to_owned);
        assert_eq!(cost(&phc), cost(decoy()));
        assert_eq!(phc.len(), decoy().len());
        assert!(PasswordHash::new(decoy()).is_ok());
        assert!(!verify("anything", decoy()));
    }

    #[test]
    fn an_older_hash_stays_good() {
        let params = Params::new(8 * 1024, 1, 1, None).unwrap();
        let old: PasswordHash =
            Argon2::default().hash_password_with_params(b"old", &[3; SALT_BYTES], params).unwrap();
        assert!(verify("old", &old.to_string()));
    }

    #[test]
    fn what_is_no_hash_answers_no() {
        for phc in ["", "plain", "$argon2id$", "$2b$12$abcdefghijklmnopqrstuv"] {
            assert!(!verify("plain", phc), "{phc}");
        }
    }
}
