//! The operator's own face: `/healthz`, `/readyz`, `/metrics`.

use std::collections::{BTreeMap, HashSet};
use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use kube::runtime::reflector::Store;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::pods::Key;
use super::reconcile::Operator;
use super::stored::Stored;

/// Upper ends of the histogram of durations, in seconds.
const BUCKETS: [f64; 6] = [0.01, 0.05, 0.1, 0.5, 1.0, 5.0];
/// Connections at a time; more wait.
const CONNECTIONS_MAX: usize = 32;
/// How long a request may take to arrive.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
const METRICS_TYPE: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4");

/// What is counted.
#[derive(Debug, Default)]
pub struct Metrics {
    reconciles: AtomicU64,
    errors: AtomicU64,
    running: AtomicU64,
    microseconds: AtomicU64,
    buckets: [AtomicU64; BUCKETS.len()],
    /// Changes that asked for a reconcile.
    triggers: AtomicU64,
    /// Gameservers that asked and have not got theirs yet.
    queue: Mutex<HashSet<Key>>,
    /// Whether this replica leads.
    pub leads: AtomicBool,
    /// Whether the API server has answered.
    pub ready: AtomicBool,
}

/// A reconcile that runs.
pub struct Timed<'a>(&'a Metrics, Instant);

impl Metrics {
    /// Counts one that wants a reconcile.
    pub fn ask(&self, key: Key) {
        self.triggers.fetch_add(1, Ordering::Relaxed);
        self.queue().insert(key);
    }

    /// Of one that is gone: it gets no reconcile any more.
    pub fn forget(&self, key: &Key) {
        self.queue().remove(key);
    }

    fn queue(&self) -> std::sync::MutexGuard<'_, HashSet<Key>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the clock of its reconcile.
    pub fn begin(&self, key: &Key) -> Timed<'_> {
        self.queue().remove(key);
        self.running.fetch_add(1, Ordering::Relaxed);
        Timed(self, Instant::now())
    }

    fn text(&self, writes: u64, store: Option<&Store<Stored>>) -> String {
        let mut text = String::new();
        let head = |name: &str, kind: &str, help: &str| {
            format!("# HELP {name} {help}\n# TYPE {name} {kind}\n")
        };
        let load = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        let waiting = u64::try_from(self.queue().len()).unwrap_or(u64::MAX);
        let plain: [(&str, &str, &str, u64); 7] = [
            ("reconciles_total", "counter", "Reconciles that ended.", load(&self.reconciles)),
            ("reconcile_errors_total", "counter", "Those that failed.", load(&self.errors)),
            ("reconciles_running", "gauge", "Reconciles that run.", load(&self.running)),
            ("triggers_total", "counter", "Changes that asked for one.", load(&self.triggers)),
            ("queue_length", "gauge", "Gameservers that wait for one.", waiting),
            ("api_writes_total", "counter", "Requests that write.", writes),
            (
                "leader",
                "gauge",
                "1 if this replica leads.",
                self.leads.load(Ordering::Relaxed).into(),
            ),
        ];
        for (name, kind, help, value) in plain {
            let name = format!("gameserver_operator_{name}");
            let _ = writeln!(text, "{}{name} {value}", head(&name, kind, help));
        }
        let name = "gameserver_operator_reconcile_seconds";
        text += &head(name, "histogram", "How long reconciles took.");
        for (end, count) in BUCKETS.iter().zip(&self.buckets) {
            let _ = writeln!(text, "{name}_bucket{{le=\"{end}\"}} {}", load(count));
        }
        let all = load(&self.reconciles);
        let _ = writeln!(text, "{name}_bucket{{le=\"+Inf\"}} {all}");
        let sum = Duration::from_micros(load(&self.microseconds)).as_secs_f64();
        let _ = writeln!(text, "{name}_sum {sum}\n{name}_count {all}");
        let Some(store) = store else { return text };
        let name = "gameserver_operator_gameservers";
        text += &head(name, "gauge", "Gameservers by condition.");
        for ((condition, status), count) in by_condition(store) {
            let labels = format!("condition=\"{condition}\",status=\"{status}\"");
            let _ = writeln!(text, "{name}{{{labels}}} {count}");
        }
        text
    }
}

impl Timed<'_> {
    /// Stops the clock.
    pub fn end(self, well: bool) {
        let (metrics, took) = (self.0, self.1.elapsed());
        metrics.reconciles.fetch_add(1, Ordering::Relaxed);
        metrics.errors.fetch_add(u64::from(!well), Ordering::Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        metrics.microseconds.fetch_add(micros, Ordering::Relaxed);
        for (end, count) in BUCKETS.iter().zip(&metrics.buckets) {
            count.fetch_add(u64::from(took.as_secs_f64() <= *end), Ordering::Relaxed);
        }
    }
}

impl Drop for Timed<'_> {
    /// One that was cut off runs no more, either.
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

fn by_condition(store: &Store<Stored>) -> BTreeMap<(String, String), u64> {
    let mut counts = BTreeMap::new();
    for object in store.state() {
        let Ok(object) = &object.0 else { continue };
        for condition in object.status.iter().flat_map(|status| &status.conditions) {
            let key = (condition.type_.clone(), condition.status.clone());
            *counts.entry(key).or_default() += 1;
        }
    }
    counts
}

/// What the listener answers from.
pub struct Face {
    /// The operator.
    pub operator: Arc<Operator>,
    /// What is known of objects, once this replica leads.
    pub store: std::sync::OnceLock<Store<Stored>>,
}

impl Face {
    fn answer(&self, path: &str) -> Response<Full<Bytes>> {
        let metrics = &self.operator.metrics;
        let text = |status: StatusCode, text: String| {
            let mut response = Response::new(Full::new(Bytes::from(text)));
            *response.status_mut() = status;
            response.headers_mut().insert(CONTENT_TYPE, METRICS_TYPE);
            response
        };
        match path {
            "/healthz" => text(StatusCode::OK, "alive\n".into()),
            "/readyz" if metrics.ready.load(Ordering::Relaxed) => {
                text(StatusCode::OK, "ready\n".into())
            }
            "/readyz" => {
                let message = "the API server has not answered yet\n";
                text(StatusCode::SERVICE_UNAVAILABLE, message.into())
            }
            "/metrics" => {
                let writes = self.operator.cluster.writes.load(Ordering::Relaxed);
                text(StatusCode::OK, metrics.text(writes, self.store.get()))
            }
            _ => text(StatusCode::NOT_FOUND, "there is /healthz, /readyz, /metrics\n".into()),
        }
    }

    /// Answers for as long as the process lives.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) {
        let free = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(place) = Arc::clone(&free).acquire_owned().await else { return };
            let Ok((stream, _)) = listener.accept().await else { continue };
            let face = Arc::clone(&self);
            tokio::spawn(async move {
                let answer = hyper::service::service_fn(|request: Request<Incoming>| {
                    let response = face.answer(request.uri().path());
                    async { Ok::<_, Infallible>(response) }
                });
                // An error: the client went away.
                let _ = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_TIMEOUT)
                    .serve_connection(TokioIo::new(stream), answer)
                    .await;
                drop(place);
            });
        }
    }
}
