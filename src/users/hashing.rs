//! Where passwords are hashed and tokens signed: on a few threads of the runtime's blocking pool.
//!
//! Argon2id takes tens of milliseconds and 19 MiB, an RSA signature a millisecond or two. So many at
//! a time are done as leave the sockets a core; the rest waits, up to a bound. Who went away while
//! waiting costs nothing.

use std::sync::Arc;
use std::thread::available_parallelism;

use tokio::sync::{Semaphore, SemaphorePermit};

use super::UserError;
use crate::platform;
use crate::telemetry::figures::PASSWORDS_WAITING;
use crate::telemetry::metrics::Held;

/// Jobs that are under way or wait; more are refused as [`UserError::Busy`].
pub const WAITING_MAX: usize = 256;
/// Jobs at a time, at most.
const RUNNING_MAX: usize = 8;
/// Memory that one takes.
const JOB_BYTES: u64 = 19 << 20;
/// The part of the memory limit that all of them together may take is one in so many.
const MEMORY_SHARE: u64 = 4;

pub(super) struct Pool {
    waiting: Semaphore,
    running: Arc<Semaphore>,
}

impl Pool {
    pub(super) fn new() -> Self {
        let cores = available_parallelism().map_or(1, usize::from);
        let running = running(cores, platform::memory_limit());
        Self { waiting: Semaphore::new(WAITING_MAX), running: Arc::new(Semaphore::new(running)) }
    }

    /// A place in the queue, for one job after the other. Whoever changes something that a later
    /// job is needed for takes it first: a refusal has to come before the change.
    pub(super) fn place(&self) -> Result<Place<'_>, UserError> {
        let permit = self.waiting.try_acquire().map_err(|_| UserError::Busy)?;
        let counted = PASSWORDS_WAITING.hold();
        Ok(Place { running: &self.running, _permit: permit, _counted: counted })
    }
}

/// Jobs at a time on so many cores in so much memory.
fn running(cores: usize, memory_limit: Option<u64>) -> usize {
    let fitting = memory_limit.map_or(RUNNING_MAX as u64, |bytes| bytes / MEMORY_SHARE / JOB_BYTES);
    let fitting = usize::try_from(fitting).unwrap_or(RUNNING_MAX);
    cores.saturating_sub(1).min(fitting).clamp(1, RUNNING_MAX)
}

/// A place in the queue of a [`Pool`].
pub(super) struct Place<'a> {
    running: &'a Arc<Semaphore>,
    _permit: SemaphorePermit<'a>,
    _counted: Held,
}

impl Place<'_> {
    pub(super) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, UserError> {
        let turn = Arc::clone(self.running).acquire_owned().await.map_err(|_| UserError::Busy)?;
        let done = tokio::task::spawn_blocking(move || {
            let result = job();
            // Held by the job and not by who waits for it: that one may go away.
            drop(turn);
            result
        });
        done.await.map_err(|_| UserError::Busy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_is_left_to_the_sockets_and_most_memory_to_the_rest() {
        for (cores, memory_limit, jobs) in [
            (1, None, 1),
            (4, None, 3),
            (64, None, RUNNING_MAX),
            (64, Some(u64::MAX), RUNNING_MAX),
            (64, Some(256 << 20), 3),
            (64, Some(16 << 20), 1),
        ] {
            assert_eq!(running(cores, memory_limit), jobs, "{cores} cores, {memory_limit:?}");
        }
    }
}
