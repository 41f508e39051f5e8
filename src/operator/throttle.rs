//! What an API server asks for that has too much to do: `Retry-After`, which it puts into a header
//! alone.
//!
//! The client's own retries are turned off: they would hide for minutes what is to be told.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::StatusCode;
use hyper::header::RETRY_AFTER;
use kube::client::ClientBuilder;
use kube::{Client, Config};
use tower::util::MapResponseLayer;

/// Most that is waited for because a server asks to.
const WAIT_MAX: Duration = Duration::from_secs(120);

/// Until when nothing is to be tried again.
#[derive(Clone, Debug, Default)]
pub struct Throttle(Arc<Mutex<Option<Instant>>>);

impl Throttle {
    /// A client whose answers are looked at.
    pub fn client(&self, mut config: Config) -> Result<Client, kube::Error> {
        config.default_retry = false;
        let throttle = self.clone();
        let look = MapResponseLayer::new(move |answer: hyper::Response<_>| {
            if answer.status() == StatusCode::TOO_MANY_REQUESTS {
                let asked = answer.headers().get(RETRY_AFTER).and_then(|asked| asked.to_str().ok());
                throttle.wait(asked.and_then(|asked| asked.parse().ok()));
            }
            answer
        });
        Ok(ClientBuilder::try_from(config)?.with_layer(&look).build())
    }

    fn wait(&self, seconds: Option<u64>) {
        let asked = Duration::from_secs(seconds.unwrap_or(0)).min(WAIT_MAX);
        let mut until = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *until = (*until).max(Some(Instant::now() + asked));
    }

    /// How long that still is.
    pub fn left(&self) -> Duration {
        let until = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }
}
