//! Random things: keys of access tokens, passwords, jitter.

use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};

/// Bytes of a password: 192 bits.
const PASSWORD_BYTES: usize = 24;
/// Characters of a PEM line (RFC 7468).
const PEM_LINE: usize = 64;

/// A new P-256 key as PKCS#8 PEM. (RSA would be the server's own choice; it takes a second to make,
/// and 1,000 Gameservers would wait for it.)
pub fn new_key_pem() -> String {
    let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
        .expect("the system has random numbers");
    let body = base64(key.as_ref());
    let mut pem = String::from("-----BEGIN PRIVATE KEY-----\n");
    for line in body.as_bytes().chunks(PEM_LINE) {
        pem.extend(line.iter().copied().map(char::from));
        pem.push('\n');
    }
    pem + "-----END PRIVATE KEY-----\n"
}

/// A new password of letters and digits.
pub fn new_password() -> String {
    use std::fmt::Write as _;
    random::<PASSWORD_BYTES>().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A number from 0 to 1.
pub fn jitter() -> f64 {
    f64::from(u32::from_le_bytes(random::<4>())) / f64::from(u32::MAX)
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("the system has random numbers");
    bytes
}

fn base64(bytes: &[u8]) -> String {
    let value = serde_json::to_value(k8s_openapi::ByteString(bytes.to_vec()));
    value.ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}
