//! What this process remembers of access tokens: those it has verified, so that a token seen
//! before costs a hash and not a signature, and the sessions that were revoked before their tokens
//! expired.

use std::collections::HashMap;
use std::mem;
use std::time::{Duration, SystemTime};

use super::tokens::{Claims, TokenError};
use crate::ids::SessionId;

/// Verified tokens that are remembered, in two generations of half as many. When the young one is
/// full or older than a token lives, the old one is forgotten and the young one takes its place:
/// what is in use stays, and nothing is ever searched for something to evict.
pub(super) const VERIFIED_MAX: usize = 65_536;

/// Revoked sessions that are remembered until their last token has expired. When they are too many,
/// all tokens that expire no later than theirs are refused instead: the clients that are still
/// signed in refresh theirs once.
pub(super) const REVOKED_MAX: usize = 262_144;

/// SHA-256 of a token.
pub(super) type Digest = [u8; 32];

pub(super) struct Seen {
    young: HashMap<Digest, Claims>,
    old: HashMap<Digest, Claims>,
    /// When the young generation is as old as any token in it.
    turn_at: SystemTime,
    revoked: HashMap<SessionId, SystemTime>,
    /// Tokens that expire no later are refused.
    refused_until: SystemTime,
}

impl Seen {
    pub(super) fn new() -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            turn_at: SystemTime::UNIX_EPOCH,
            revoked: HashMap::new(),
            refused_until: SystemTime::UNIX_EPOCH,
        }
    }

    /// A token that was verified before.
    pub(super) fn claims(&mut self, token: &Digest) -> Option<Claims> {
        if let Some(claims) = self.young.get(token) {
            return Some(*claims);
        }
        let claims = self.old.remove(token)?;
        self.insert(*token, claims);
        Some(claims)
    }

    /// Remembers a verified token.
    pub(super) fn remember(
        &mut self,
        token: Digest,
        claims: Claims,
        now: SystemTime,
        lifetime: Duration,
    ) {
        if now >= self.turn_at {
            self.turn();
            self.turn_at = now + lifetime;
            self.revoked.retain(|_, until| *until > now);
        }
        self.insert(token, claims);
    }

    /// Forgets a token.
    pub(super) fn forget(&mut self, token: &Digest) {
        self.young.remove(token);
        self.old.remove(token);
    }

    /// Refuses the tokens of a session, which expire at `until` at the latest. Whether it is new.
    pub(super) fn revoke(&mut self, session: SessionId, until: SystemTime) -> bool {
        let new = !self.revoked.contains_key(&session);
        if new && self.revoked.len() >= REVOKED_MAX {
            let latest = self.revoked.drain().map(|(_, until)| until).max();
            self.refused_until = latest.map_or(self.refused_until, |at| at.max(self.refused_until));
        }
        let known = self.revoked.entry(session).or_insert(until);
        *known = until.max(*known);
        new
    }

    /// Refuses what was revoked.
    pub(super) fn check(&self, claims: &Claims) -> Result<(), TokenError> {
        let revoked =
            claims.expires_at <= self.refused_until || self.revoked.contains_key(&claims.session);
        if revoked { Err(TokenError::Revoked) } else { Ok(()) }
    }

    fn insert(&mut self, token: Digest, claims: Claims) {
        if self.young.len() >= VERIFIED_MAX / 2 {
            self.turn();
        }
        self.young.insert(token, claims);
    }

    fn turn(&mut self) {
        self.old = mem::take(&mut self.young);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::UserId;

    const LIFETIME: Duration = Duration::from_secs(900);

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn claims(expires_at: SystemTime) -> Claims {
        Claims { user: UserId::new(), session: SessionId::new(), expires_at }
    }

    fn digest(n: usize) -> Digest {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&(n as u64).to_le_bytes());
        digest
    }

    #[test]
    fn it_holds_so_many_tokens_and_keeps_those_in_use() {
        let mut seen = Seen::new();
        for n in 0..VERIFIED_MAX * 3 {
            seen.remember(digest(n), claims(at(2000)), at(1000), LIFETIME);
            assert!(seen.claims(&digest(0)).is_some(), "forgot a token in use after {n}");
        }
        assert!(seen.young.len() + seen.old.len() <= VERIFIED_MAX);
        assert!(seen.claims(&digest(1)).is_none());
    }

    #[test]
    fn what_has_expired_is_gone_two_lifetimes_later() {
        let mut seen = Seen::new();
        seen.remember(digest(1), claims(at(1900)), at(1000), LIFETIME);
        seen.remember(digest(2), claims(at(2800)), at(1900), LIFETIME);
        assert!(seen.old.contains_key(&digest(1)));
        seen.remember(digest(3), claims(at(3700)), at(2800), LIFETIME);
        assert!(seen.claims(&digest(1)).is_none());
    }

    #[test]
    fn revocations_are_pruned_once_their_tokens_have_expired() {
        let mut seen = Seen::new();
        seen.remember(digest(1), claims(at(1900)), at(1000), LIFETIME);
        seen.revoke(SessionId::new(), at(1900));
        seen.remember(digest(2), claims(at(2800)), at(1900), LIFETIME);
        assert!(seen.revoked.is_empty());
    }

    #[test]
    fn a_later_end_of_a_revocation_counts() {
        let mut seen = Seen::new();
        let session = SessionId::new();
        seen.revoke(session, at(2000));
        seen.revoke(session, at(1000));
        assert_eq!(seen.revoked[&session], at(2000));
    }

    #[test]
    fn too_many_revocations_refuse_more_and_never_less() {
        let mut seen = Seen::new();
        let revoked = claims(at(1900));
        seen.revoke(revoked.session, at(1900));
        for _ in 0..REVOKED_MAX {
            seen.revoke(SessionId::new(), at(1900));
        }
        assert!(seen.revoked.len() <= REVOKED_MAX);
        assert_eq!(seen.check(&revoked), Err(TokenError::Revoked));
        assert_eq!(seen.check(&claims(at(1900))), Err(TokenError::Revoked));
        assert_eq!(seen.check(&claims(at(1901))), Ok(()));
    }
}
