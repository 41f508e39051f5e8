//! What a user, a name or an address may do in a minute. Minutes are those of the clock: all is counted
//! from 0 when one begins. Where nodes share a store they count there, together.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use super::problem::Refusal;
use crate::auth::secrets::digest;
use crate::ids::{Timestamp, UserId};
use crate::store::Store;
use crate::telemetry::figures::{self, RATE_LIMITED};

/// Names, users and addresses that are counted at a time by a node that is alone; who comes when all
/// of them are of this minute is refused.
const KEYS_MAX: usize = 65_536;
/// What is counted together, in milliseconds.
const MINUTE_MILLIS: i64 = 60_000;

/// How often in a minute; 0: as often as one likes.
#[derive(Clone, Copy, Debug)]
pub struct PerMinute {
    /// Wrong passwords for one user name.
    pub failed_sign_ins: u32,
    /// New matches, tickets and quick plays of one user.
    pub matches: u32,
    /// New accounts, guests' included, from one address.
    pub accounts: u32,
}

/// The counts.
pub(super) struct Limits {
    store: Arc<Store>,
    per_minute: PerMinute,
    here: Mutex<Minute>,
}

/// What was counted in one minute by a node that is alone.
#[derive(Default)]
struct Minute {
    number: i64,
    counts: HashMap<[u8; 32], u32>,
}

/// A sign-in that is under way, and counts as failed until it is [`Limits::forgive`]n.
pub(super) struct Attempt([u8; 32]);

impl Limits {
    pub(super) fn new(store: Arc<Store>, per_minute: PerMinute) -> Self {
        Self { store, per_minute, here: Mutex::default() }
    }

    /// Counts a sign-in before its password is looked at: many at a time are no way around.
    pub(super) async fn sign_in(&self, username: &str) -> Result<Attempt, Refusal> {
        let key = digest(&format!("sign-in {}", username.to_lowercase()));
        self.take(key, self.per_minute.failed_sign_ins, figures::PerMinute::SignIns).await?;
        Ok(Attempt(key))
    }

    /// It did not fail.
    pub(super) async fn forgive(&self, Attempt(key): Attempt) {
        match &*self.store {
            Store::Postgres(_) if self.per_minute.failed_sign_ins == 0 => {}
            Store::Postgres(store) => {
                if let Err(error) = store.uncount(key).await {
                    tracing::warn!(%error, "a good sign-in counts as a failed one for a minute");
                }
            }
            Store::Sqlite(_) => self.uncount_here(key),
        }
    }

    /// Counts a match or a ticket.
    pub(super) async fn matches(&self, user: UserId) -> Result<(), Refusal> {
        let key = digest(&format!("match {user}"));
        self.take(key, self.per_minute.matches, figures::PerMinute::Matches).await
    }

    /// Counts a new account.
    pub(super) async fn accounts(&self, address: IpAddr) -> Result<(), Refusal> {
        let key = digest(&format!("account {}", network(address)));
        self.take(key, self.per_minute.accounts, figures::PerMinute::Accounts).await
    }

    async fn take(&self, key: [u8; 32], most: u32, of: figures::PerMinute) -> Result<(), Refusal> {
        if most == 0 {
            return Ok(());
        }
        let (count, seconds_left) = match &*self.store {
            Store::Postgres(store) => store.count(key).await?,
            Store::Sqlite(_) => self.count_here(key, Timestamp::now()),
        };
        if count <= most {
            return Ok(());
        }
        RATE_LIMITED.of(of).increment();
        Err(Refusal::rate_limited(most, seconds_left))
    }

    /// How often in this minute, with this one; and the seconds that it still has.
    fn count_here(&self, key: [u8; 32], now: Timestamp) -> (u32, u32) {
        let minute = now.0.div_euclid(MINUTE_MILLIS);
        let left = MINUTE_MILLIS - now.0.rem_euclid(MINUTE_MILLIS);
        let left = u32::try_from(left.unsigned_abs().div_ceil(1000)).unwrap_or(u32::MAX);
        let mut here = self.here.lock().unwrap_or_else(PoisonError::into_inner);
        if here.number != minute {
            *here = Minute { number: minute, counts: HashMap::new() };
        }
        if here.counts.len() >= KEYS_MAX && !here.counts.contains_key(&key) {
            return (u32::MAX, left);
        }
        let count = here.counts.entry(key).or_default();
        *count = count.saturating_add(1);
        (*count, left)
    }

    fn uncount_here(&self, key: [u8; 32]) {
        let mut here = self.here.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = here.counts.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                here.counts.remove(&key);
            }
        }
    }
}

/// Whom an address stands for: with IPv6 a customer has a network of 2^64 at least.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::Sqlite;

    fn limits() -> (tempfile::TempDir, Limits) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::Sqlite(Sqlite::open(&dir.path().join("store.db")).unwrap());
        let per_minute = PerMinute { failed_sign_ins: 2, matches: 1, accounts: 0 };
        (dir, Limits::new(Arc::new(store), per_minute))
    }

    #[test]
    fn each_minute_is_counted_from_nothing() {
        let (_dir, limits) = limits();
        let at = |millis| limits.count_here([0; 32], Timestamp(millis));
        assert_eq!((at(120_000), at(179_001)), ((1, 60), (2, 1)));
        assert_eq!((at(180_000), at(180_500)), ((1, 60), (2, 60)));
        assert_eq!(limits.count_here([1; 32], Timestamp(180_500)), (1, 60), "others are others");
        limits.uncount_here([0; 32]);
        assert_eq!(at(180_600), (2, 60));
    }

    #[test]
    fn no_more_is_counted_than_there_is_room_for() {
        let (_dir, limits) = limits();
        let key = |number: usize| digest(&number.to_string());
        for number in 0..KEYS_MAX {
            assert_eq!(limits.count_here(key(number), Timestamp(0)), (1, 60));
        }
        assert_eq!(limits.count_here(key(KEYS_MAX), Timestamp(0)), (u32::MAX, 60));
        assert_eq!(limits.count_here(key(0), Timestamp(0)), (2, 60));
        assert_eq!(limits.count_here(key(KEYS_MAX), Timestamp(60_000)), (1, 60));
        assert_eq!(limits.here.lock().unwrap().counts.len(), 1, "a minute ago is forgotten");
    }

    #[test]
    fn an_address_stands_for_its_network() {
        let network = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(network("::ffff:192.0.2.7"), "192.0.2.7");
    }
}
