//! The admin listener: health, readiness and figures. Not for players.

use std::fmt::{Display, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::Method;
use hyper::header::{CONTENT_TYPE, HeaderValue};

use crate::http::Http;
use crate::http::problem::Refusal;
use crate::http::server::{Connection, Handler, Request, Response};
use crate::matches::Registry;
use crate::platform;
use crate::store::Store;

/// What the admin listener answers from.
pub struct Admin {
    store: Arc<Store>,
    registry: Arc<Registry>,
    http: Arc<Http>,
    draining: AtomicBool,
    started: Instant,
}

/// How long the store may take to say that it is there.
const PING_TIMEOUT: Duration = Duration::from_secs(2);
/// Prometheus' text format.
const METRICS_TYPE: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

impl Admin {
    /// For these rooms.
    pub fn new(store: Arc<Store>, registry: Arc<Registry>, http: Arc<Http>) -> Arc<Self> {
        Arc::new(Self {
            store,
            registry,
            http,
            draining: AtomicBool::new(false),
            started: Instant::now(),
        })
    }

    /// Not ready any more, for good.
    pub fn start_drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    async fn readiness(&self) -> Response {
        if self.draining.load(Ordering::Relaxed) {
            return Refusal::unavailable("draining").into_response();
        }
        if !self.registry.log_is_healthy() {
            return Refusal::unavailable("the store does not take moves").into_response();
        }
        match tokio::time::timeout(PING_TIMEOUT, self.store.ping()).await {
            Err(_) => Refusal::unavailable("the store does not answer").into_response(),
            Ok(Ok(())) => text(TEXT, "ready\n"),
            Ok(Err(error)) => Refusal::from(error).into_response(),
        }
    }

    fn metrics(&self) -> String {
        let mut text = String::new();
        let mut metric = |name: &str, kind: &str, help: &str, value: u64| {
            write_metric(&mut text, name, kind, help, value);
        };
        let (sockets, matches) = (self.http.sockets(), self.registry.matches_loaded() as u64);
        metric("gameserver_sockets", "gauge", "WebSockets that are open.", sockets);
        metric("gameserver_matches_loaded", "gauge", "Matches in memory.", matches);
        let requests = self.http.requests();
        metric("gameserver_http_requests_total", "counter", "Requests answered.", requests);
        let uptime = self.started.elapsed().as_secs();
        metric("gameserver_uptime_seconds", "gauge", "Seconds since the start.", uptime);
        write_usage(&mut text);
        text
    }
}

fn write_metric(text: &mut String, name: &str, kind: &str, help: &str, value: impl Display) {
    let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
}

/// What the process uses, under the names that Prometheus has for that, as far as the platform tells.
fn write_usage(text: &mut String) {
    let usage = platform::usage();
    if let Some(cpu) = usage.cpu {
        let (name, help) = ("process_cpu_seconds_total", "Processor time of all threads.");
        write_metric(text, name, "counter", help, cpu.as_secs_f64());
    }
    for (name, help, value) in [
        ("process_resident_memory_bytes", "Memory in RAM.", usage.resident_bytes),
        ("process_open_fds", "Open files and sockets.", usage.descriptors),
        ("process_max_fds", "How many may be open.", Some(platform::raise_descriptor_limit())),
        (
            "gameserver_memory_limit_bytes",
            "What the control group allows.",
            platform::memory_limit(),
        ),
        ("gameserver_allocated_bytes", "Memory that is in use.", usage.allocated_bytes),
        ("gameserver_allocator_bytes", "RAM that the allocator holds.", usage.allocator_bytes),
    ] {
        if let Some(value) = value {
            write_metric(text, name, "gauge", help, value);
        }
    }
}

impl Handler for Admin {
    async fn handle(self: Arc<Self>, request: Request, _: Arc<Connection>) -> Response {
        let known = ["/healthz", "/readyz", "/metrics"].contains(&request.uri().path());
        if known && ![Method::GET, Method::HEAD].contains(request.method()) {
            return Refusal::method_not_allowed("GET, HEAD").into_response();
        }
        match request.uri().path() {
            "/healthz" => text(TEXT, "alive\n"),
            "/readyz" => self.readiness().await,
            "/metrics" => text(METRICS_TYPE, &self.metrics()),
            _ => Refusal::not_found("address").into_response(),
        }
    }
}

fn text(content_type: HeaderValue, body: &str) -> Response {
    let mut response = Response::new(Full::new(Bytes::copy_from_slice(body.as_bytes())));
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}
