//! What the background tasks are doing: each has a place here, and says when it works.

use std::sync::atomic::{AtomicU32, Ordering};

use super::trace;

/// A task that lives as long as the server.
pub struct Background {
    /// What it is called.
    pub name: &'static str,
    /// What it is doing when it works.
    pub work: &'static str,
    /// 0 before it began; then 1, and one more for each piece of work that is under way.
    under_way: AtomicU32,
}

/// What a background task is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing: it has not begun, there is no need for it, or it has ended.
    Absent,
    /// It waits for something to do.
    Waits,
    /// It works.
    Works,
}

/// Writes the events of matches to the store.
pub static LOG: Background = Background::new("log of matches", "commit");
/// Looks after matches once a second.
pub static UPKEEP: Background = Background::new("upkeep of matches", "upkeep");
/// Renews the node's lease.
pub static LEASE: Background = Background::new("lease of the node", "renewal");
/// Writes to the SQLite file.
pub static SQLITE: Background = Background::new("writer of the SQLite file", "transaction");
/// Moves the clocks of `ticks` games.
pub static TICKER: Background = Background::new("ticker", "steps");
/// Brings players together.
pub static MATCHMAKER: Background = Background::new("matchmaker", "round");

/// All of them.
pub static ALL: [&Background; 6] = [&LOG, &UPKEEP, &TICKER, &LEASE, &SQLITE, &MATCHMAKER];

impl Background {
    const fn new(name: &'static str, work: &'static str) -> Self {
        Self { name, work, under_way: AtomicU32::new(0) }
    }

    /// It is at work until what is given is dropped; then it waits, unless there is more.
    pub fn works(&'static self) -> Working {
        self.under_way.fetch_max(1, Ordering::Relaxed);
        self.under_way.fetch_add(1, Ordering::Relaxed);
        Working { task: self, span: trace::waiting_span(self.work) }
    }

    /// What it is doing.
    pub fn state(&self) -> State {
        match self.under_way.load(Ordering::Relaxed) {
            0 => State::Absent,
            1 => State::Waits,
            _ => State::Works,
        }
    }
}

/// A background task at work.
#[must_use]
pub struct Working {
    task: &'static Background,
    /// What it takes.
    pub span: trace::Span,
}

impl Drop for Working {
    fn drop(&mut self) {
        self.task.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}
