//! The durable log: all events of all matches that wait at the same moment are one commit.
//!
//! One task takes what has gathered while commits are under way ([`Pipeline`]), sends it behind
//! them, and tells each match how far it has come, in order; only then does a match tell anyone of
//! the events ([`super::live`]). While the store is away the task keeps trying: nothing is dropped,
//! matches stand still.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::live::Match;
use crate::store::{Appended, MatchChange, Pipeline, Store, StoreError};
use crate::telemetry::figures::{CHANGES_REFUSED, COMMIT_CHANGES, COMMIT_TIME, COMMITS_FAILED};
use crate::telemetry::work::{self, Working};
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
    let (pipeline, under_way) = (Pipeline::new(Arc::clone(&store)), VecDeque::new());
    let writer = Writer { store, health: Arc::clone(&health), pipeline, under_way };
    tokio::spawn(writer.run(queue));
    (sender, health)
}

/// Changes of one commit, and the matches that wait for it.
struct Batch {
    changes: Arc<Vec<MatchChange>>,
    waiting: Vec<(Arc<Match>, u64)>,
    began: Instant,
    _working: Working,
}

struct Writer {
    store: Arc<Store>,
    health: LogHealth,
    pipeline: Pipeline,
    /// What the pipeline has not answered yet, oldest first.
    under_way: VecDeque<Batch>,
}

impl Writer {
    async fn run(mut self, mut queue: mpsc::Receiver<Entry>) {
        let _vital = Vital("the log of matches");
        let (mut entries, mut open) = (Vec::new(), true);
        loop {
            tokio::select! {
                biased;
                answer = self.pipeline.answer(), if !self.under_way.is_empty() => {
                    self.settle(answer).await;
                }
                taken = queue.recv_many(&mut entries, BATCH_MAX),
                    if open && self.pipeline.has_room() =>
                {
                    open = taken > 0;
                    self.send(entries.drain(..)).await;
                }
                else => return,
            }
        }
    }

    async fn send(&mut self, entries: impl Iterator<Item = Entry>) {
        // What follows from a refused change never was.
        let entries = entries.filter(|entry| !entry.origin.is_refused());
        let (changes, waiting): (Vec<_>, Vec<_>) =
            entries.map(|entry| (entry.change, (entry.origin, entry.number))).unzip();
        if changes.is_empty() {
            return;
        }
        let (began, mut working) = (Instant::now(), work::LOG.works());
        working.span.amount(changes.len());
        COMMIT_CHANGES.observe(changes.len() as u64);
        let changes = Arc::new(changes);
        self.pipeline.send(Arc::clone(&changes)).await;
        self.under_way.push_back(Batch { changes, waiting, began, _working: working });
    }

    /// Takes the answer to the oldest batch. If it failed, all that are under way are written one
    /// after the other, as they were: those behind it were sent for a state that includes it.
    async fn settle(&mut self, answer: Result<Appended, StoreError>) {
        match (answer, self.under_way.front()) {
            (Ok(appended), Some(batch)) => {
                self.health.store(true, Ordering::Relaxed);
                batch.tell(&appended);
                self.under_way.pop_front();
                return;
            }
            // Contradictions are no failure of the store: `append` finds whose they are.
            (Ok(_) | Err(StoreError::Conflict(_) | StoreError::Corrupt(_)), _) => {}
            (Err(error), _) => self.failed(&error),
        }
        while let Some(batch) = self.under_way.pop_front() {
            let appended = self.commit(&batch.changes).await;
            batch.tell(&appended);
        }
    }

    /// Writes until the store takes it, and gives what came of it.
    async fn commit(&mut self, changes: &Arc<Vec<MatchChange>>) -> Appended {
        let mut pause = RETRY_FIRST;
        loop {
            match self.store.append(Arc::clone(changes)).await {
                Ok(appended) => {
                    self.health.store(true, Ordering::Relaxed);
                    return appended;
                }
                Err(error) => self.failed(&error),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    fn failed(&self, error: &StoreError) {
        self.health.store(false, Ordering::Relaxed);
        COMMITS_FAILED.increment();
        tracing::error!(%error, "commit failed, trying again");
    }
}

impl Batch {
    /// Tells its matches what became of their changes.
    fn tell(&self, appended: &Appended) {
        COMMIT_TIME.took(self.began.elapsed());
        for (origin, number) in &self.waiting {
            if appended.refused.contains(&origin.id) {
                CHANGES_REFUSED.increment();
                tracing::error!(r#match = %origin.id, "the match's log refused a change");
                origin.refuse();
            } else {
                origin.committed(*number, appended.ratings.get(&origin.id).map(Vec::as_slice));
            }
        }
    }
}
