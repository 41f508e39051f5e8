//! The durable log: all events of all matches that wait at the same moment are one commit.
//!
//! One task takes what has gathered while the last commit ran, writes it, and tells each match how
//! far it has come; only then does a match tell anyone of the events ([`super::live`]). While the
//! store is away the task keeps trying: nothing is dropped, matches stand still.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;

use super::live::Match;
use crate::ids::MatchId;
use crate::store::{MatchChange, Store};
use crate::vital::Vital;

/// Changes that may wait; a command that finds no room is refused as `overloaded`.
pub const LOG_QUEUE_MAX: usize = 16 * 1024;
/// Changes in one commit at most.
const BATCH_MAX: usize = 4096;
/// The pause after a failed commit, doubled each time up to [`RETRY_MAX`].
const RETRY_FIRST: Duration = Duration::from_millis(20);
/// The longest pause between tries.
const RETRY_MAX: Duration = Duration::from_secs(1);

/// A change on its way, and the match that waits for it.
pub struct Entry {
    pub(super) change: MatchChange,
    /// Which one of its match it is, counted from 1 since the match was loaded.
    pub(super) number: u64,
    pub(super) origin: Arc<Match>,
}

/// The queue's near end.
pub type LogSender = mpsc::Sender<Entry>;

/// Whether the store takes what is sent; false while a commit is tried again.
pub type LogHealth = Arc<AtomicBool>;

/// Starts the task. It ends once all senders are gone and all that was sent is written.
pub fn start(store: Arc<Store>) -> (LogSender, LogHealth) {
    let (sender, queue) = mpsc::channel(LOG_QUEUE_MAX);
    let health = Arc::new(AtomicBool::new(true));
    let writer = Writer { store, health: Arc::clone(&health) };
    tokio::spawn(writer.run(queue));
    (sender, health)
}

struct Writer {
    store: Arc<Store>,
    health: LogHealth,
}

impl Writer {
    async fn run(self, mut queue: mpsc::Receiver<Entry>) {
        let _vital = Vital("the log of matches");
        let mut entries = Vec::new();
        while queue.recv_many(&mut entries, BATCH_MAX).await > 0 {
            // What follows from a refused change never was.
            let entries = entries.drain(..).filter(|entry| !entry.origin.is_refused());
            let (changes, waiting): (Vec<_>, Vec<_>) =
                entries.map(|entry| (entry.change, (entry.origin, entry.number))).unzip();
            let refused = self.commit(Arc::new(changes)).await;
            for (origin, number) in waiting {
                if refused.contains(&origin.id) {
                    tracing::error!(r#match = %origin.id, "the match's log refused a change");
                    origin.refuse();
                } else {
                    origin.committed(number);
                }
            }
        }
    }

    /// Writes until the store takes it, and gives the matches that refused their part.
    async fn commit(&self, changes: Arc<Vec<MatchChange>>) -> Vec<MatchId> {
        let mut pause = RETRY_FIRST;
        loop {
            let error = match self.store.append(Arc::clone(&changes)).await {
                Ok(refused) => {
                    self.health.store(true, Ordering::Relaxed);
                    return refused;
                }
                Err(error) => error,
            };
            self.health.store(false, Ordering::Relaxed);
            tracing::error!(%error, changes = changes.len(), "commit failed, trying again");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }
}
