//! A clock that counts seconds and costs one load to read.
//!
//! Grace periods, pings and lingers are counted in whole seconds; the registry moves the clock on
//! once a second, so that no message asks the operating system for the time.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

/// Seconds since the server's start.
pub struct Clock {
    start: Instant,
    seconds: AtomicU32,
}

impl Clock {
    /// Starts at 0.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self { start: Instant::now(), seconds: AtomicU32::new(0) }
    }

    /// The time at the last [`Clock::advance`].
    pub fn now(&self) -> u32 {
        self.seconds.load(Ordering::Relaxed)
    }

    /// Takes the time from the operating system.
    pub fn advance(&self) {
        let seconds = u32::try_from(self.start.elapsed().as_secs()).unwrap_or(u32::MAX);
        self.seconds.store(seconds, Ordering::Relaxed);
    }
}
