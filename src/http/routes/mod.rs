//! What each address does.

mod accounts;
mod documents;
mod elsewhere;
mod leaderboards;
mod matches;
mod sockets;
mod tickets;

use std::sync::Arc;

use serde::Serialize;

pub(super) use documents::asset;
pub(super) use tickets::wait;

use super::Http;
use super::input::Query;
use super::problem::Refusal;
use super::router::Endpoint;
use super::server::{Connection, Request, Response};
use crate::ids::MatchId;

/// Items of a page of a list, unless told otherwise.
const PAGE_DEFAULT: u64 = 50;
/// Items of a page at most.
const PAGE_MAX: u64 = 200;

/// Does what `endpoint` is there for; `parameter` is what its address holds, if anything.
pub(super) async fn serve(
    http: &Arc<Http>,
    endpoint: Endpoint,
    parameter: &str,
    request: Request,
    connection: &Arc<Connection>,
) -> Result<Response, Refusal> {
    match endpoint {
        Endpoint::Jwks => Ok(documents::jwks(http)),
        Endpoint::Register => accounts::register(http, request, connection).await,
        Endpoint::SignIn => accounts::sign_in(http, request).await,
        Endpoint::SignInAsGuest => accounts::sign_in_as_guest(http, request, connection).await,
        Endpoint::Refresh => accounts::refresh(http, request).await,
        Endpoint::SignOut => accounts::sign_out(http, &request).await,
        Endpoint::Me => accounts::me(http, &request).await,
        Endpoint::UpdateMe => accounts::update_me(http, request).await,
        Endpoint::DeleteMe => accounts::delete_me(http, &request).await,
        Endpoint::User => accounts::user(http, &request, parameter).await,
        Endpoint::Games => Ok(matches::games(http)),
        Endpoint::Game => matches::game(http, parameter),
        Endpoint::Leaderboard => leaderboards::leaderboard(http, &request, parameter).await,
        Endpoint::CreateMatch => matches::create(http, request).await,
        Endpoint::Matches => matches::list(http, &request).await,
        Endpoint::Match => matches::one(http, request, parameter, connection).await,
        Endpoint::Join => matches::join(http, request, parameter, connection).await,
        Endpoint::Leave => matches::leave(http, request, parameter, connection).await,
        Endpoint::Events => matches::events(http, request, parameter, connection).await,
        Endpoint::Socket => sockets::attach(http, request, parameter, connection).await,
        Endpoint::Play => sockets::play(http, request, parameter, connection).await,
        Endpoint::SocketTicket => sockets::ticket(http, &request).await,
        Endpoint::CreateTicket => tickets::create(http, request).await,
        Endpoint::Ticket => tickets::one(http, &request, parameter).await,
        Endpoint::CancelTicket => tickets::cancel(http, &request, parameter).await,
    }
}

/// A page of a list.
#[derive(Serialize)]
struct List<T> {
    items: Vec<T>,
    /// Where the next page goes on; null on the last one.
    next_cursor: Option<String>,
}

/// How many items a page of a list has.
fn limit(query: &Query<'_>) -> Result<u32, Refusal> {
    let limit = query.number("limit", 1..=PAGE_MAX)?.unwrap_or(PAGE_DEFAULT);
    Ok(u32::try_from(limit).unwrap_or(u32::MAX))
}

/// The id of a match in an address, which is noted: lines of the log about this request tell it.
fn match_id(parameter: &str) -> Result<MatchId, Refusal> {
    id(parameter, "match").inspect(|id| note(*id))
}

/// Lets lines of the log about this request tell the match that it is about.
fn note(id: MatchId) {
    tracing::Span::current().record("match", tracing::field::display(id));
}

/// The id in an address. One that is none is nobody's.
fn id<T: std::str::FromStr>(parameter: &str, what: &str) -> Result<T, Refusal> {
    parameter.parse().map_err(|_| Refusal::not_found(what))
}
