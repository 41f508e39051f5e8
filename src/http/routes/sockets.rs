//! The upgrade to a WebSocket: everything that can be refused is, before it.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use fastwebsockets::upgrade::{is_upgrade_request, upgrade};
use http_body_util::Full;
use hyper::header::{
    HeaderValue, ORIGIN, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
};
use hyper::upgrade::Upgraded;
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;

use super::elsewhere::{is_passed_on, pass_on};
use super::matches::known;
use super::{match_id, note};
use crate::auth::Claims;
use crate::http::input::Query;
use crate::http::problem::Refusal;
use crate::http::server::{Connection, Request, Response};
use crate::http::{Http, host, json};
use crate::ids::MatchId;
use crate::matches::{Attachment, Caller, Outbox};
use crate::protocol::Codec;
use crate::session;
use crate::telemetry::trace;
use crate::tls::Stream;
use crate::users::TICKET_SECONDS;

#[derive(Serialize)]
struct Ticket<'a> {
    ticket: &'a str,
    expires_in: u64,
}

pub(super) async fn ticket(http: &Http, request: &Request) -> Result<Response, Refusal> {
    let claims = http.claims(request)?;
    let full = || Refusal::unavailable("too many socket tickets wait to be used");
    let ticket = http.tickets.issue(claims).await?.ok_or_else(full)?;
    let body = Ticket { ticket: ticket.as_str(), expires_in: TICKET_SECONDS.into() };
    Ok(json(StatusCode::CREATED, &body))
}

pub(super) async fn attach(
    http: &Arc<Http>,
    request: Request,
    parameter: &str,
    connection: &Arc<Connection>,
) -> Result<Response, Refusal> {
    let claims = claims(http, &request).await?;
    let id = match_id(parameter)?;
    if !is_websocket(&request) {
        // What the caller may not know of is not there, however it is asked for.
        known(http, id, claims.user).await?;
    }
    let wish = Wish::of(http, &request, claims)?;
    if let Some(owner) = http.registry.elsewhere(id).await? {
        return pass_on(http, request, &claims, &owner, connection).await;
    }
    connect(http, request, id, wish, connection).await
}

pub(super) async fn play(
    http: &Arc<Http>,
    request: Request,
    game: &str,
    connection: &Arc<Connection>,
) -> Result<Response, Refusal> {
    let claims = claims(http, &request).await?;
    http.registry.game_type(game)?;
    let wish = Wish::of(http, &request, claims)?;
    if !is_passed_on(&request) {
        http.limits.matches(claims.user).await?;
        if let Some(home) = http.cluster.home_elsewhere(game).await? {
            return pass_on(http, request, &claims, &home, connection).await;
        }
    }
    let user = http.account(wish.claims.user).await?;
    let id = http.registry.quick_play(game, &user).await?;
    note(id);
    connect(http, request, id, wish, connection).await
}

/// What a request for a socket says.
struct Wish {
    claims: Claims,
    codec: Codec,
    subprotocol: Option<&'static str>,
    after: Option<u64>,
    /// Whether views come as differences from the one before.
    differences: bool,
}

impl Wish {
    fn of(http: &Http, request: &Request, claims: Claims) -> Result<Self, Refusal> {
        let (headers, query) = (request.headers(), Query::of(request));
        if !is_websocket(request) {
            return Err(Refusal::upgrade_required());
        }
        if let Some(origin) = headers.get(ORIGIN) {
            let known = origin.to_str().is_ok_and(|origin| http.allows(origin, host(headers)));
            if !known {
                return Err(Refusal::forbidden("pages of this origin may not connect"));
            }
        }
        if *http.draining.borrow() {
            return Err(Refusal::unavailable("the server is about to stop: come back"));
        }
        let offered: Vec<&str> = headers
            .get_all(SEC_WEBSOCKET_PROTOCOL)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .collect();
        let offered = (!offered.is_empty()).then(|| offered.join(","));
        let spoken =
            "none of the offered subprotocols is spoken here: gameserver.v1.json and .msgpack are";
        let (codec, subprotocol) =
            Codec::choose(offered.as_deref()).ok_or_else(|| Refusal::malformed(spoken))?;
        let after = query.number("after", 0..=u64::MAX)?;
        let views = query.parsed("views", "whole or diff", |value| match value {
            "whole" => Some(false),
            "diff" => Some(true),
            _ => None,
        })?;
        let differences = views.unwrap_or(false);
        Ok(Self { claims, codec, subprotocol, after, differences })
    }
}

/// Whether it asks for a WebSocket that we speak (RFC 6455 4.2.1).
pub(super) fn is_websocket(request: &Request) -> bool {
    let headers = request.headers();
    let version = headers.get(SEC_WEBSOCKET_VERSION).map(HeaderValue::as_bytes);
    *request.method() == Method::GET
        && is_upgrade_request(request)
        && version == Some(b"13")
        && headers.contains_key(SEC_WEBSOCKET_KEY)
}

/// Who asks: by a ticket, which is used up, or by an access token.
async fn claims(http: &Http, request: &Request) -> Result<Claims, Refusal> {
    match Query::of(request).text("ticket") {
        Some(ticket) => redeem(http, &ticket).await,
        None => http.claims(request),
    }
}

/// Whom a ticket speaks for, if the session that asked for it has not ended since.
async fn redeem(http: &Http, ticket: &str) -> Result<Claims, Refusal> {
    let used = || Refusal::unauthorized("the ticket is unknown, expired or used");
    let claims = http.tickets.redeem(ticket).await?.ok_or_else(used)?;
    http.users.tokens().recheck(&claims, SystemTime::now())?;
    Ok(claims)
}

async fn connect(
    http: &Arc<Http>,
    mut request: Request,
    id: MatchId,
    wish: Wish,
    connection: &Arc<Connection>,
) -> Result<Response, Refusal> {
    let _span = trace::waiting_span("upgrade");
    let outbox = Outbox::new(wish.codec, wish.differences, http.registry.clock.now());
    let caller = Caller { user: wish.claims.user, session: wish.claims.session };
    let attachment = http.registry.attach(id, caller, &outbox, wish.after).await?;
    // Signing out closes the sockets that are there: this one may have come a moment too late.
    http.users.tokens().recheck(&wish.claims, SystemTime::now())?;
    let (response, socket) = upgrade(&mut request).map_err(|_| Refusal::upgrade_required())?;
    let (http, connection) = (Arc::clone(http), Arc::clone(connection));
    tokio::spawn(async move {
        // An error: the client went away before the answer reached it.
        let Ok(socket) = socket.await else { return };
        let Some((stream, early)) = below(socket.into_inner().into_inner()) else { return };
        // A task of its own: it lives long, and is to hold what a socket needs and no more.
        tokio::spawn(serve(http, connection, stream, early, attachment, outbox));
    });
    let mut response = response.map(|_| Full::new(Bytes::new()));
    if let Some(name) = wish.subprotocol {
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(name));
    }
    Ok(response)
}

/// The connection below an upgrade, and what was read of it already.
pub(super) fn below(upgraded: Upgraded) -> Option<(Stream, Bytes)> {
    let parts = upgraded.downcast::<TokioIo<Stream>>().ok()?;
    Some((parts.io.into_inner(), parts.read_buf))
}

async fn serve(
    http: Arc<Http>,
    connection: Arc<Connection>,
    stream: Stream,
    early: Bytes,
    attachment: Attachment,
    outbox: Arc<Outbox>,
) {
    let clock = Arc::clone(&http.registry.clock);
    session::run(stream, early, attachment, outbox, clock, http.rates).await;
    drop(connection);
}
