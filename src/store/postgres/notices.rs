//! What nodes tell each other by `NOTIFY`: that there is something to look at, never what it is.
//!
//! The tables are the truth. A notice may be lost (the connection broke, a pooler is in between), so
//! whoever waits for one also looks by itself every now and then; a notice makes it look sooner. They
//! are sent in the statement that makes the change, so they come when it can be seen.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thiserror::Error;
use tokio::sync::watch;
use uuid::Uuid;

/// The channel of `LISTEN` and `NOTIFY`.
pub const CHANNEL: &str = "gameserver";

/// What there is to look at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Notice {
    /// Sessions ended, maybe with their accounts.
    Revoked,
    /// A node came or went.
    Nodes,
    /// A matchmaking ticket has another state.
    Ticket(Uuid),
}

/// A notice of another version of the server; it is passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no notice that is known here")]
pub struct UnknownNotice;

/// As `NOTIFY` carries it: a word, and what it is about.
impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Revoked => f.write_str("revoked"),
            Self::Nodes => f.write_str("nodes"),
            Self::Ticket(id) => write!(f, "ticket {id}"),
        }
    }
}

impl FromStr for Notice {
    type Err = UnknownNotice;

    fn from_str(payload: &str) -> Result<Self, UnknownNotice> {
        let (word, about) = payload.split_once(' ').unwrap_or((payload, ""));
        match (word, about) {
            ("revoked", "") => Ok(Self::Revoked),
            ("nodes", "") => Ok(Self::Nodes),
            ("ticket", id) => id.parse().map(Self::Ticket).map_err(|_| UnknownNotice),
            _ => Err(UnknownNotice),
        }
    }
}

/// Those of this node who wait for notices: as many entries as there are things that somebody waits for.
#[derive(Default)]
pub struct Notices(Mutex<HashMap<Notice, watch::Sender<()>>>);

impl Notices {
    /// Waits for `notice` from now on.
    pub fn subscribe(self: &Arc<Self>, notice: Notice) -> Subscription {
        let told = self.lock().entry(notice.clone()).or_default().subscribe();
        Subscription { notices: Arc::clone(self), notice, told: Some(told) }
    }

    /// Wakes those who wait for `notice`.
    pub fn tell(&self, notice: &Notice) {
        if let Some(waiting) = self.lock().get(notice) {
            waiting.send_replace(());
        }
    }

    /// Wakes all: nobody knows what was missed.
    pub fn tell_all(&self) {
        for waiting in self.lock().values() {
            waiting.send_replace(());
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Notice, watch::Sender<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody who waits for a notice. Many that come while nobody looks are one.
pub struct Subscription {
    notices: Arc<Notices>,
    notice: Notice,
    /// Taken as it is dropped.
    told: Option<watch::Receiver<()>>,
}

impl Subscription {
    /// Comes with the next notice since the last call, or since it began. Cancel-safe.
    pub async fn changed(&mut self) {
        if let Some(told) = &mut self.told {
            // Never an error: the sender stays for as long as somebody waits.
            let _ = told.changed().await;
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut all = self.notices.lock();
        drop(self.told.take());
        if all.get(&self.notice).is_some_and(|waiting| waiting.receiver_count() == 0) {
            all.remove(&self.notice);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_are_read_as_they_are_written() {
        let id = Uuid::now_v7();
        for (notice, payload) in [
            (Notice::Revoked, "revoked".to_owned()),
            (Notice::Nodes, "nodes".into()),
            (Notice::Ticket(id), format!("ticket {id}")),
        ] {
            assert_eq!(notice.to_string(), payload);
            assert_eq!(payload.parse(), Ok(notice));
        }
        for unknown in ["", "revoked x", "nodes 1", "tickets", "tickets ", "ticket", "ticket 1"] {
            assert_eq!(unknown.parse::<Notice>(), Err(UnknownNotice), "{unknown:?}");
        }
    }

    #[tokio::test]
    async fn who_waits_is_told_of_what_it_waits_for() {
        let notices = Arc::new(Notices::default());
        let chess = Notice::Ticket(Uuid::now_v7());
        let mut waiting = notices.subscribe(chess.clone());
        let mut other = notices.subscribe(Notice::Nodes);
        let came = async |waiting: &mut Subscription| {
            tokio::select! { biased; () = waiting.changed() => true, () = async {} => false }
        };
        notices.tell(&Notice::Ticket(Uuid::now_v7()));
        assert!(!came(&mut waiting).await);
        // Before it looks, and more than one.
        notices.tell(&chess);
        notices.tell(&chess);
        assert!(came(&mut waiting).await && !came(&mut waiting).await);
        assert!(!came(&mut other).await);
        notices.tell_all();
        assert!(came(&mut waiting).await && came(&mut other).await);
        let second = notices.subscribe(chess.clone());
        drop((waiting, other));
        assert_eq!(notices.lock().keys().collect::<Vec<_>>(), [&chess]);
        drop(second);
        assert!(notices.lock().is_empty());
    }
}
