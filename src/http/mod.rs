//! The public listener: REST, the upgrade to WebSockets, the documents and the web client.
//!
//! - `server`: connections
//! - `router`: which address takes which methods; `openapi.json` says the same, and a test holds
//!   them together
//! - this page: what every request goes through: id, deadline, origin, access log
//! - `limits`: what one may do in a minute
//! - `proxies`: where a request comes from
//! - `input`, `problem`: what a request says, and what it is told where that can't be done
//! - `routes`: what each address does; `figures`: how often and how long

mod figures;
pub mod input;
mod limits;
pub mod problem;
mod proxies;
mod router;
mod routes;
pub mod server;

use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ALLOW, AUTHORIZATION, CACHE_CONTROL,
    CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN, VARY,
};
use hyper::{Method, StatusCode};
use ipnet::IpNet;
use serde::Serialize;
use tokio::sync::watch;
use tracing::Instrument as _;

pub use self::figures::FIGURES;
use self::figures::{Answered, REQUESTS, Route, TIMES};
use self::limits::Limits;
pub use self::limits::PerMinute;
use self::problem::Refusal;
use self::proxies::Proxies;
use self::router::{Found, Router};
use self::server::{Connection, Handler, Request, Response};
use crate::auth::{Claims, NodeTokens};
use crate::cluster::Cluster;
use crate::ids::UserId;
use crate::matches::Registry;
use crate::matches::matchmaker::Matchmaker;
use crate::session::Rates;
use crate::store::{Store, UserRecord};
use crate::telemetry::figures::REQUESTS_ACTIVE;
use crate::telemetry::trace;
use crate::users::{SocketTickets, UserError, Users};

/// The name of the header that a request is found by.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The name of the header in which a node says for whom it passes a request on.
const X_NODE: HeaderName = HeaderName::from_static("x-gameserver-node");
/// Longest request id that is taken over from a client.
const REQUEST_ID_BYTES_MAX: usize = 64;

/// For whom another node has passed a request on.
#[derive(Clone, Copy)]
struct PassedOn(Claims);

/// Where a request comes from, as far as that is to be believed.
#[derive(Clone, Copy)]
struct Client(IpAddr);

impl Client {
    /// Of a request that was identified; otherwise who is at the other end.
    fn of(request: &Request, connection: &Connection) -> IpAddr {
        let peer = || connection.peer.ip().to_canonical();
        request.extensions().get().map_or_else(peer, |Client(client)| *client)
    }
}

/// What all requests share.
pub struct Http {
    store: Arc<Store>,
    users: Arc<Users>,
    registry: Arc<Registry>,
    cluster: Arc<Cluster>,
    matchmaker: Arc<Matchmaker>,
    limits: Limits,
    nodes: NodeTokens,
    tickets: SocketTickets,
    router: Router,
    rates: Rates,
    request_timeout: Duration,
    allowed_origins: RwLock<Vec<String>>,
    proxies: Proxies,
    draining: watch::Sender<bool>,
}

/// How the public listener behaves.
pub struct Settings {
    /// The deadline of a request.
    pub request_timeout: Duration,
    /// Origins of pages elsewhere that may connect, as browsers write them.
    pub allowed_origins: Vec<String>,
    /// Proxies that are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// What a socket may send.
    pub rates: Rates,
    /// What one may do in a minute.
    pub per_minute: PerMinute,
    /// What nodes know each other by.
    pub node_secret: String,
}

impl Http {
    /// Everything but the listener.
    pub fn new(
        store: Arc<Store>,
        users: Arc<Users>,
        registry: Arc<Registry>,
        cluster: Arc<Cluster>,
        matchmaker: Arc<Matchmaker>,
        settings: Settings,
    ) -> Arc<Self> {
        Arc::new(Self {
            tickets: SocketTickets::new(Arc::clone(&store)),
            nodes: NodeTokens::new(&settings.node_secret),
            limits: Limits::new(Arc::clone(&store), settings.per_minute),
            store,
            users,
            registry,
            cluster,
            matchmaker,
            router: Router::new(),
            rates: settings.rates,
            request_timeout: settings.request_timeout,
            allowed_origins: RwLock::new(settings.allowed_origins),
            proxies: Proxies(settings.trusted_proxies),
            draining: watch::Sender::new(false),
        })
    }

    /// Other origins from now on.
    pub fn set_allowed_origins(&self, origins: Vec<String>) {
        *self.allowed_origins.write().unwrap_or_else(PoisonError::into_inner) = origins;
    }

    /// From now on sockets are refused with 503: their clients find another server, or this one
    /// when it is back.
    pub fn refuse_sockets(&self) {
        self.draining.send_replace(true);
    }

    /// For whom the request is: by another node's word, or by an access token.
    fn claims(&self, request: &Request) -> Result<Claims, Refusal> {
        if let Some(PassedOn(claims)) = request.extensions().get() {
            self.users.tokens().recheck(claims, SystemTime::now())?;
            return Ok(*claims);
        }
        let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = header.and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
        });
        let token = token.filter(|token| !token.is_empty());
        let missing = || Refusal::unauthorized("send `Authorization: Bearer` and an access token");
        Ok(self.users.verify(token.ok_or_else(missing)?)?)
    }

    /// The account of somebody who is signed in.
    async fn account(&self, id: UserId) -> Result<UserRecord, Refusal> {
        self.users.find(id).await.map_err(|error| match error {
            UserError::Gone => Refusal::unauthorized("the account does not exist any more"),
            other => other.into(),
        })
    }

    /// Notes for whom and from where a request comes, and gives the latter.
    fn identify(&self, request: &mut Request, peer: IpAddr) -> IpAddr {
        let mut by_node = false;
        if let Some(token) = request.headers_mut().remove(X_NODE)
            // What no node has said is nothing.
            && let Ok(claims) = self.nodes.verify(token.to_str().unwrap_or(""), SystemTime::now())
        {
            request.extensions_mut().insert(PassedOn(claims));
            by_node = true;
        }
        let client = self.proxies.client(peer, by_node, request.headers());
        request.extensions_mut().insert(Client(client));
        client
    }

    async fn answer(
        self: &Arc<Self>,
        found: Found,
        request: Request,
        connection: &Arc<Connection>,
    ) -> Result<Response, Refusal> {
        match found {
            Found::Endpoint(endpoint, parameter) => {
                routes::serve(self, endpoint, &parameter, request, connection).await
            }
            Found::Asset(asset) => Ok(routes::asset(asset, &request)),
            Found::OtherMethods(allow) if *request.method() == Method::OPTIONS => {
                Ok(options(&allow))
            }
            Found::OtherMethods(allow) => Err(Refusal::method_not_allowed(&allow)),
            Found::Nothing => Err(Refusal::not_found("address")),
        }
    }

    /// Whether a page of this origin may read answers and open sockets: one of ours, or allowed.
    fn allows(&self, origin: &str, host: Option<&str>) -> bool {
        let own = origin
            .split_once("://")
            .map(|(_, host)| host)
            .filter(|_| origin.starts_with("http://") || origin.starts_with("https://"));
        let same = own.zip(host).is_some_and(|(own, host)| own.eq_ignore_ascii_case(host));
        same || self.is_allowed_elsewhere(origin)
    }

    fn is_allowed_elsewhere(&self, origin: &str) -> bool {
        let allowed = self.allowed_origins.read().unwrap_or_else(PoisonError::into_inner);
        allowed.iter().any(|allowed| allowed == origin)
    }

    /// Lets pages of allowed origins read the answer (Fetch Standard, CORS protocol).
    fn share(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
        headers.append(VARY, HeaderValue::from_static("origin"));
        let Some(origin) = origin else { return };
        if origin.to_str().is_ok_and(|origin| self.is_allowed_elsewhere(origin)) {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers.insert(
                ACCESS_CONTROL_EXPOSE_HEADERS,
                HeaderValue::from_static("location, retry-after, x-request-id"),
            );
        }
    }
}

impl Handler for Http {
    async fn handle(
        self: Arc<Self>,
        mut request: Request,
        connection: Arc<Connection>,
    ) -> Response {
        let began = Instant::now();
        let (id, span) = begin(request.headers());
        // Another node that it is passed on to takes it over.
        request.headers_mut().insert(X_REQUEST_ID, id.clone());
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let origin = request.headers().get(ORIGIN).cloned();
        let client = self.identify(&mut request, connection.peer.ip());
        let taken_for = if method == Method::HEAD { &Method::GET } else { &method };
        let found = self.router.find(&path, taken_for);
        let route = Route::of(&found);
        let (_active, _span) = (REQUESTS_ACTIVE.hold(), trace::waiting_span("request"));
        // What is wrong with it is said by whoever waits.
        let deadline = self.request_timeout + routes::wait(&request).unwrap_or_default();
        let answer = self.answer(found, request, &connection).instrument(span.clone());
        let answer = tokio::time::timeout(deadline, answer).await;
        let mut response = match answer {
            Ok(Ok(response)) => response,
            Ok(Err(refusal)) => refusal.into_response(),
            Err(_) => Refusal::timeout(self.request_timeout.as_secs()).into_response(),
        };
        let headers = response.headers_mut();
        if !headers.contains_key(CACHE_CONTROL) {
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
        self.share(origin.as_ref(), headers);
        headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
        REQUESTS.of(Answered(route, response.status())).increment();
        TIMES.of(route).took(began.elapsed());
        let (status, micros) = (response.status().as_u16(), micros(began));
        span.in_scope(|| {
            // The files of the page say nothing at the usual level: there are ten for each visit.
            if path.starts_with("/assets/") {
                tracing::debug!(target: "access", %method, path, status, micros, %client);
            } else {
                tracing::info!(target: "access", %method, path, status, micros, %client);
            }
        });
        response.headers_mut().insert(X_REQUEST_ID, id);
        response
    }
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// A request's id, and the span in which it is answered: each line of the log that it leads to has
/// the id, and the match once that is known.
pub fn begin(headers: &HeaderMap) -> (HeaderValue, tracing::Span) {
    let id = request_id(headers);
    let request_id = id.to_str().unwrap_or_default();
    let span = tracing::error_span!("request", request_id, "match" = tracing::field::Empty);
    (id, span)
}

/// The client's own id, if it is sane; a new one otherwise.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let sane = |value: &&HeaderValue| {
        let bytes = value.as_bytes();
        (1..=REQUEST_ID_BYTES_MAX).contains(&bytes.len())
            && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
    };
    headers.get(X_REQUEST_ID).filter(sane).cloned().unwrap_or_else(|| {
        let id = uuid::Uuid::now_v7().to_string();
        HeaderValue::try_from(id).expect("a UUID is ASCII")
    })
}

/// An answer without a body.
fn empty(status: StatusCode) -> Response {
    let mut response = Response::default();
    *response.status_mut() = status;
    response
}

/// An answer with a JSON body.
fn json<T: Serialize>(status: StatusCode, body: &T) -> Response {
    // All keys are strings and all numbers finite: this can't fail.
    let body = serde_json::to_vec(body).expect("an answer is JSON");
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// What an address takes, also for browsers that ask before they send (Fetch Standard).
fn options(allow: &str) -> Response {
    let mut response = empty(StatusCode::NO_CONTENT);
    let methods = HeaderValue::from_str(allow).unwrap_or(HeaderValue::from_static("GET"));
    let headers = response.headers_mut();
    headers.insert(ALLOW, methods.clone());
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
    headers.insert(
        ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static("authorization, content-type, x-request-id"),
    );
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    response
}

/// The host that the client asked for.
fn host(headers: &HeaderMap) -> Option<&str> {
    headers.get(HOST).and_then(|value| value.to_str().ok())
}
