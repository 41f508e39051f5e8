//! One line on a terminal that says how far it is; nothing elsewhere.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// How often the line is written again at most.
const INTERVAL: Duration = Duration::from_millis(100);

pub(super) struct Progress {
    terminal: bool,
    at: (&'static str, &'static str),
    rows: u64,
    began: Instant,
    shown: Option<Instant>,
}

impl Progress {
    pub(super) fn start() -> Self {
        let terminal = io::stderr().is_terminal();
        Self { terminal, at: ("", ""), rows: 0, began: Instant::now(), shown: None }
    }

    /// Another row of a table is done.
    pub(super) fn row(&mut self, doing: &'static str, table: &'static str) {
        if !self.terminal {
            return;
        }
        let now = Instant::now();
        if self.at != (doing, table) {
            (self.at, self.rows, self.began) = ((doing, table), 0, now);
        }
        self.rows += 1;
        if self.shown.is_none_or(|shown| now.duration_since(shown) >= INTERVAL) {
            self.shown = Some(now);
            let millis = now.duration_since(self.began).as_millis().max(1);
            let rate = u128::from(self.rows) * 1000 / millis;
            let line = format!("\r\x1b[K{doing} {table}: {} rows, {rate} rows/s", self.rows);
            let _ = io::stderr().write_all(line.as_bytes());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown.is_some() {
            let _ = io::stderr().write_all(b"\r\x1b[K");
        }
    }
}
