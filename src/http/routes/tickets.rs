//! Tickets of the matchmaker.

use std::sync::Arc;
use std::time::Duration;

use hyper::header::{HeaderValue, LOCATION};
use hyper::{Method, StatusCode};
use serde::{Deserialize, Serialize};

use super::id;
use crate::games::SEATS_MAX;
use crate::http::input::{Fields, Query};
use crate::http::problem::Refusal;
use crate::http::server::{Request, Response, begun};
use crate::http::{Http, empty, json};
use crate::ids::{MatchId, TicketId};
use crate::matches::MatchError;
use crate::matches::matchmaker::TicketError;
use crate::store::{Party, TicketRecord, TicketState};

/// The most seconds that an answer is held.
const WAIT_SECONDS_MAX: u64 = 30;
/// Longest code of a party, in characters.
const CODE_CHARS_MAX: usize = 32;
/// What a party is.
const PARTY_TAKES: &str = r#"{"code": 1 to 32 characters, "size": 2 to 64}"#;
/// Where tickets are.
const TICKETS: &str = "/v1/tickets/";

#[derive(Serialize)]
struct Ticket<'a> {
    id: TicketId,
    game: &'a str,
    state: TicketState,
    r#match: Option<MatchId>,
}

impl<'a> From<&'a TicketRecord> for Ticket<'a> {
    fn from(record: &'a TicketRecord) -> Self {
        // A match that is being made is nobody's business yet.
        let r#match = record.r#match.filter(|_| record.state == TicketState::Matched);
        Self { id: record.id, game: &record.game, state: record.state, r#match }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawParty {
    code: String,
    size: u8,
}

/// A party whose code and size are within bounds.
#[derive(Deserialize)]
#[serde(try_from = "RawParty")]
struct PartyField(Party);

impl TryFrom<RawParty> for PartyField {
    type Error = &'static str;

    fn try_from(RawParty { code, size }: RawParty) -> Result<Self, Self::Error> {
        let chars = code.chars().take(CODE_CHARS_MAX + 1).count();
        let sound = (1..=CODE_CHARS_MAX).contains(&chars)
            && !code.chars().any(char::is_control)
            && (2..=SEATS_MAX).contains(&size);
        if sound { Ok(Self(Party { code, size })) } else { Err(PARTY_TAKES) }
    }
}

/// How long the answer to a request is to be held: so much more time than others it has.
pub(in crate::http) fn wait(request: &Request) -> Result<Duration, Refusal> {
    let is_ticket = request.method() == Method::GET && request.uri().path().starts_with(TICKETS);
    let query = Query::of(request);
    let seconds = if is_ticket { query.number("wait", 0..=WAIT_SECONDS_MAX)? } else { None };
    Ok(Duration::from_secs(seconds.unwrap_or(0)))
}

pub(super) async fn create(http: &Http, request: Request) -> Result<Response, Refusal> {
    let claims = http.claims(&request)?;
    let mut fields = Fields::read(request).await?;
    let game = fields.required_text("game");
    let options = fields.object("options").unwrap_or_default();
    let party = fields.word("party", PARTY_TAKES).map(|PartyField(party)| party);
    fields.end()?;
    http.limits.matches(claims.user).await?;
    let posted = http.matchmaker.post(claims.user, &game, options, party).await;
    let (ticket, new) = posted.map_err(|error| match error {
        TicketError::Match(MatchError::UnknownGame(_)) => {
            Refusal::invalid_field("game", "takes a name of /v1/games")
        }
        other => other.into(),
    })?;
    let status = if new { StatusCode::CREATED } else { StatusCode::OK };
    let mut response = json(status, &Ticket::from(&ticket));
    let location = HeaderValue::try_from(format!("{TICKETS}{}", ticket.id));
    response.headers_mut().extend(location.ok().map(|location| (LOCATION, location)));
    Ok(response)
}

pub(super) async fn one(
    http: &Arc<Http>,
    request: &Request,
    parameter: &str,
) -> Result<Response, Refusal> {
    let claims = http.claims(request)?;
    let id = id(parameter, "ticket")?;
    let mut draining = http.draining.subscribe();
    let ticket = tokio::select! {
        ticket = http.matchmaker.wait(id, claims.user, wait(request)?) => ticket?,
        // Whoever waits is to ask another server.
        () = begun(&mut draining) => http.matchmaker.find(id, claims.user).await?,
    };
    Ok(json(StatusCode::OK, &Ticket::from(&ticket)))
}

pub(super) async fn cancel(
    http: &Http,
    request: &Request,
    parameter: &str,
) -> Result<Response, Refusal> {
    let claims = http.claims(request)?;
    http.matchmaker.cancel(id(parameter, "ticket")?, claims.user).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}
