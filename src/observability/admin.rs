//! The admin listener: health, readiness, figures, profiles, and a page for a look. Not for players.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::Full;
use hyper::Method;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use tracing::Instrument as _;

use super::status::History;
use super::{metrics, pprof, status};
use crate::cluster::Cluster;
use crate::http::problem::Refusal;
use crate::http::server::{Connection, Handler, Request, Response};
use crate::http::{X_REQUEST_ID, begin};
use crate::matches::Registry;
use crate::store::Store;

/// What the admin listener answers from.
pub struct Admin {
    pub(super) store: Arc<Store>,
    pub(super) registry: Arc<Registry>,
    pub(super) cluster: Arc<Cluster>,
    pub(super) started_at: SystemTime,
    pub(super) history: History,
    draining: AtomicBool,
}

/// How long the store may take to say that it is there.
const PING_TIMEOUT: Duration = Duration::from_secs(2);
/// Where profiles are.
const PPROF: &str = "/debug/pprof";
/// Prometheus' text format.
const METRICS: &str = "text/plain; version=0.0.4";
const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";

impl Admin {
    /// For these rooms; looks at them every now and then, as long as anybody holds it.
    pub fn start(store: Arc<Store>, registry: Arc<Registry>, cluster: Arc<Cluster>) -> Arc<Self> {
        let admin = Arc::new(Self {
            store,
            registry,
            cluster,
            started_at: SystemTime::now(),
            history: History::default(),
            draining: AtomicBool::new(false),
        });
        tokio::spawn(status::keep_history(Arc::downgrade(&admin)));
        admin
    }

    /// Not ready any more, for good.
    pub fn start_drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    pub(super) fn uptime(&self) -> Duration {
        SystemTime::now().duration_since(self.started_at).unwrap_or_default()
    }

    /// `Ok` if it can take players.
    pub(super) async fn readiness(&self) -> Result<(), Refusal> {
        if self.draining.load(Ordering::Relaxed) {
            return Err(Refusal::unavailable("draining"));
        }
        if !self.registry.log_is_healthy() {
            return Err(Refusal::unavailable("the store does not take moves"));
        }
        match tokio::time::timeout(PING_TIMEOUT, self.store.ping()).await {
            Err(_) => Err(Refusal::unavailable("the store does not answer")),
            Ok(answer) => Ok(answer?),
        }
    }

    async fn answer(&self, request: Request) -> Result<Response, Refusal> {
        let path = request.uri().path().to_owned();
        if let Some(page) = path.strip_prefix(PPROF).and_then(|rest| rest.strip_prefix('/')) {
            return pprof::answer(self, page, request).await;
        }
        let known = ["/", "/healthz", "/readyz", "/metrics", PPROF].contains(&path.as_str());
        if known && ![Method::GET, Method::HEAD].contains(request.method()) {
            return Err(Refusal::method_not_allowed("GET, HEAD"));
        }
        match path.as_str() {
            "/" => Ok(body(HTML, status::page(self).await)),
            "/healthz" => Ok(body(TEXT, "alive\n")),
            "/readyz" => self.readiness().await.map(|()| body(TEXT, "ready\n")),
            "/metrics" => Ok(body(METRICS, metrics::text(self))),
            // Whoever leaves the slash out is shown the page whose links need it.
            PPROF => Ok(pprof::to_index()),
            _ => Err(Refusal::not_found("address")),
        }
    }
}

impl Handler for Admin {
    async fn handle(self: Arc<Self>, request: Request, _: Arc<Connection>) -> Response {
        let (id, span) = begin(request.headers());
        let answer = self.answer(request).instrument(span).await;
        let mut response = answer.unwrap_or_else(Refusal::into_response);
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_REQUEST_ID, id);
        response
    }
}

/// An answer of this type.
pub(super) fn body(content_type: &'static str, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(Full::new(body.into()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
