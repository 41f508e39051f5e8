//! Stands between an operator and the API server, and answers in its place as a test says.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HOST, RETRY_AFTER};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use kube::client::Body;
use tokio::net::TcpListener;

use crate::kubernetes::{Kubernetes, client_without_retries};

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is answered with this status.
    Answer(u16),
    /// It is answered 429, with so many seconds to wait, as an API server does it: in a header alone.
    Throttle(u32),
    /// It is not answered.
    Silence,
}

/// The fault of a request, by its method and path.
pub type Rule = fn(&str, &str) -> Option<Fault>;

/// Where the operator finds it, and what came.
pub struct Proxy {
    pub port: u16,
    state: Arc<State>,
}

struct State {
    rule: Mutex<Rule>,
    /// Requests that met a fault.
    met: Mutex<Vec<Instant>>,
}

impl Proxy {
    /// Stands before an API server, as the user `operator`.
    pub fn start(kubernetes: &'static Kubernetes, rule: Rule) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State { rule: Mutex::new(rule), met: Mutex::default() });
        let answering = Arc::clone(&state);
        // A thread of its own: tests wait for processes.
        std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(serve(kubernetes, listener, answering));
        });
        Self { port, state }
    }

    /// From now on.
    pub fn set(&self, rule: Rule) {
        *self.state.rule.lock().unwrap() = rule;
    }

    /// When requests met a fault.
    pub fn met(&self) -> Vec<Instant> {
        self.state.met.lock().unwrap().clone()
    }
}

async fn serve(
    kubernetes: &'static Kubernetes,
    listener: std::net::TcpListener,
    state: Arc<State>,
) {
    let listener = TcpListener::from_std(listener).unwrap();
    let client = client_without_retries(&kubernetes.kubeconfig("operator", "default")).await;
    while let Ok((stream, _)) = listener.accept().await {
        let (client, state) = (client.clone(), Arc::clone(&state));
        tokio::spawn(async move {
            let answer = service_fn(|request| answer(&client, &state, request));
            // An error: the operator was ended.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), answer)
                .await;
        });
    }
}

async fn answer(
    client: &kube::Client,
    state: &State,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let rule = *state.rule.lock().unwrap();
    let fault = rule(request.method().as_str(), request.uri().path());
    if fault.is_some() {
        state.met.lock().unwrap().push(Instant::now());
    }
    let plain = |status: u16| {
        let mut answer = Response::new(Body::from("not now\n".as_bytes().to_vec()));
        *answer.status_mut() = StatusCode::from_u16(status).unwrap();
        answer
    };
    match fault {
        Some(Fault::Answer(status)) => return Ok(plain(status)),
        Some(Fault::Throttle(seconds)) => {
            let mut answer = plain(429);
            answer.headers_mut().insert(RETRY_AFTER, seconds.into());
            return Ok(answer);
        }
        Some(Fault::Silence) => std::future::pending().await,
        None => {}
    }
    let (mut parts, body) = request.into_parts();
    parts.headers.remove(HOST);
    parts.headers.remove(AUTHORIZATION);
    let Ok(body) = body.collect().await else { return Ok(plain(400)) };
    let request = Request::from_parts(parts, Body::from(body.to_bytes().to_vec()));
    Ok(client.send(request).await.unwrap_or_else(|_| plain(502)))
}
