//! How nodes believe each other: a short token that says for whom a request is passed on.
//!
//! It is a JWT under a secret that all nodes read from their store. It can't be mistaken for an access
//! token: those name a key, and this has another audience.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use jwt_simple::prelude::{HS256Key, JWTClaims, MACLike as _, UnixTimeStamp, VerificationOptions};
use serde::{Deserialize, Serialize};

use super::tokens::{Claims, TokenError};
use crate::ids::SessionId;

const AUDIENCE: &str = "gameserver-node";
/// How long it is good: as long as a request may take on its way.
const LIFETIME: Duration = Duration::from_secs(60);
/// How far nodes' clocks may differ.
const CLOCK_SKEW_SECONDS: u64 = 30;

/// Issues and verifies such tokens.
pub struct NodeTokens(HS256Key);

#[derive(Serialize, Deserialize)]
struct PassedOn {
    sid: SessionId,
    /// When the access token expires that the client showed, in seconds since 1970.
    until: u64,
}

impl NodeTokens {
    /// Under a secret that all nodes know.
    pub fn new(secret: &str) -> Self {
        Self(HS256Key::from_bytes(secret.as_bytes()))
    }

    /// Says that `claims` were verified here.
    pub fn issue(&self, claims: &Claims, now: SystemTime) -> String {
        let issued_at = seconds(now);
        self.0
            .authenticate(JWTClaims {
                issued_at: Some(UnixTimeStamp::from_secs(issued_at)),
                expires_at: Some(UnixTimeStamp::from_secs(issued_at + LIFETIME.as_secs())),
                invalid_before: None,
                issuer: None,
                subject: Some(claims.user.to_string()),
                audiences: Some(AUDIENCE.into()),
                jwt_id: None,
                nonce: None,
                custom: PassedOn { sid: claims.session, until: seconds(claims.expires_at) },
            })
            .expect("claims are JSON")
    }

    /// For whom a request was passed on.
    pub fn verify(&self, token: &str, now: SystemTime) -> Result<Claims, TokenError> {
        let options = VerificationOptions {
            allowed_audiences: Some(HashSet::from([AUDIENCE.to_owned()])),
            time_tolerance: Some(jwt_simple::prelude::Duration::from_secs(CLOCK_SKEW_SECONDS)),
            artificial_time: Some(UnixTimeStamp::from_secs(seconds(now))),
            ..VerificationOptions::default()
        };
        let claims: JWTClaims<PassedOn> =
            self.0.verify_token(token, Some(options)).map_err(|_| TokenError::BadSignature)?;
        let user = claims.subject.and_then(|user| user.parse().ok());
        Ok(Claims {
            user: user.ok_or(TokenError::MissingClaim)?,
            session: claims.custom.sid,
            expires_at: SystemTime::UNIX_EPOCH + Duration::from_secs(claims.custom.until),
        })
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::UserId;

    const SECRET: &str = "a secret of forty-three characters, as usual";
    const OTHER: &str = "another secret of as many characters or more";

    #[test]
    fn what_one_node_says_another_with_the_secret_believes_for_a_while() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let claims = Claims {
            user: UserId::new(),
            session: SessionId::new(),
            expires_at: at(1_800_000_900),
        };
        let token = NodeTokens::new(SECRET).issue(&claims, at(1_800_000_000));
        let other = NodeTokens::new(SECRET);
        assert_eq!(other.verify(&token, at(1_800_000_030)), Ok(claims));
        assert!(other.verify(&token, at(1_800_000_091)).is_err());
        assert!(NodeTokens::new(OTHER).verify(&token, at(1_800_000_000)).is_err());
        assert!(other.verify("", at(1_800_000_000)).is_err());
    }
}
