//! Where passwords are hashed and tokens signed: on a few threads of the runtime's blocking pool.
//!
//! Argon2id takes tens of milliseconds and 19 MiB, an RSA signature a millisecond or two. So many at
//! a time are done as leave the sockets a core; the rest waits, up to a bound. Who went away while
//! waiting costs nothing.

use std::sync::Arc;
use std::thread::available_parallelism;

use tokio::sync::{Semaphore, SemaphorePermit};

use super::UserError;

/// Jobs that are under way or wait; more are refused as [`UserError::Busy`].
pub const WAITING_MAX: usize = 256;
/// Jobs at a time, at most: 19 MiB each.
const RUNNING_MAX: usize = 8;

pub(super) struct Pool {
    waiting: Semaphore,
    running: Arc<Semaphore>,
}

impl Pool {
    pub(super) fn new() -> Self {
        let cores = available_parallelism().map_or(1, usize::from);
        let running = cores.saturating_sub(1).clamp(1, RUNNING_MAX);
        Self { waiting: Semaphore::new(WAITING_MAX), running: Arc::new(Semaphore::new(running)) }
    }

    /// A place in the queue, for one job after the other. Whoever changes something that a later
    /// job is needed for takes it first: a refusal has to come before the change.
    pub(super) fn place(&self) -> Result<Place<'_>, UserError> {
        let place = self.waiting.try_acquire().map_err(|_| UserError::Busy)?;
        Ok(Place { running: &self.running, _place: place })
    }
}

/// A place in the queue of a [`Pool`].
pub(super) struct Place<'a> {
    running: &'a Arc<Semaphore>,
    _place: SemaphorePermit<'a>,
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
