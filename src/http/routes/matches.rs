//! Games and matches.

use std::sync::Arc;

use hyper::StatusCode;
use hyper::header::{HeaderValue, LOCATION};
use serde::Serialize;
use serde_json::value::RawValue;

use super::elsewhere::{is_passed_on, pass_on};
use super::{List, limit, match_id, note};
use crate::games::{Outcome, Seat};
use crate::http::input::{Fields, Query};
use crate::http::problem::Refusal;
use crate::http::server::{Connection, Request, Response};
use crate::http::{Http, empty, json};
use crate::ids::{MatchId, Timestamp, UserId};
use crate::matches::{MatchError, NewMatch, may_know, players_of};
use crate::protocol::Player;
use crate::ratings::RatingChange;
use crate::store::{MatchFilter, MatchRecord, MatchState, Visibility};

/// A match as one who may know of it sees it.
#[derive(Serialize)]
struct Match<'a> {
    id: MatchId,
    game: &'a str,
    state: MatchState,
    visibility: Visibility,
    /// For players alone.
    join_code: Option<&'a str>,
    seats: u8,
    players: Vec<Player>,
    seq: u64,
    created_at: Timestamp,
    outcome: Option<&'a Outcome>,
    ratings: Option<&'a [RatingChange]>,
}

#[derive(Serialize)]
struct Logged {
    seq: u64,
    seat: Option<Seat>,
    at: Timestamp,
    event: Box<RawValue>,
}

#[derive(Serialize)]
struct Seated {
    seat: Seat,
}

impl<'a> Match<'a> {
    fn of(http: &Http, record: &'a MatchRecord, viewer: UserId) -> Self {
        let live = http.registry.live_state(record);
        let (connected, seq) = live.unwrap_or((Vec::new(), record.seq));
        let plays = record.players.iter().any(|player| player.user == Some(viewer));
        Self {
            id: record.id,
            game: &record.game,
            state: record.state,
            visibility: record.visibility,
            join_code: record.join_code.as_deref().filter(|_| plays),
            seats: record.seats,
            players: players_of(record, &connected),
            seq,
            created_at: record.created_at,
            outcome: record.outcome.as_ref(),
            ratings: record.ratings.as_deref(),
        }
    }
}

pub(super) fn games(http: &Http) -> Response {
    let items = http.registry.catalog().list();
    json(StatusCode::OK, &List { items, next_cursor: None })
}

pub(super) fn game(http: &Http, name: &str) -> Result<Response, Refusal> {
    Ok(json(StatusCode::OK, http.registry.game_type(name)?.info()))
}

pub(super) async fn create(http: &Http, request: Request) -> Result<Response, Refusal> {
    let claims = http.claims(&request)?;
    let mut fields = Fields::read(request).await?;
    let new = NewMatch {
        game: fields.required_text("game"),
        visibility: fields.word("visibility", "\"public\" or \"private\"").unwrap_or_default(),
        options: fields.object("options").unwrap_or_default(),
    };
    fields.end()?;
    http.limits.matches(claims.user).await?;
    let creator = http.account(claims.user).await?;
    let live = http.registry.create(new, &creator).await.map_err(|error| match error {
        MatchError::UnknownGame(_) => Refusal::invalid_field("game", "takes a name of /v1/games"),
        other => other.into(),
    })?;
    note(live.id);
    let record = http.store.match_record(live.id).await?.ok_or(MatchError::Unknown)?;
    let mut response = json(StatusCode::CREATED, &Match::of(http, &record, claims.user));
    let location = HeaderValue::try_from(format!("/v1/matches/{}", live.id));
    response.headers_mut().extend(location.ok().map(|location| (LOCATION, location)));
    Ok(response)
}

pub(super) async fn list(http: &Http, request: &Request) -> Result<Response, Refusal> {
    let claims = http.claims(request)?;
    let query = Query::of(request);
    let limit = limit(&query)?;
    let filter = MatchFilter {
        game: query.text("game"),
        state: query.parsed("state", "open, running or ended", |word| {
            serde_json::from_value(word.into()).ok()
        })?,
        mine: query.parsed("mine", "true or false", |word| word.parse().ok())?.unwrap_or(false),
        before: query.parsed("cursor", "a next_cursor", |cursor| cursor.parse().ok())?,
        limit: limit + 1,
    };
    let mut records = http.store.matches(claims.user, filter).await?;
    let more = records.len() > limit as usize;
    records.truncate(limit as usize);
    let next_cursor = records.last().filter(|_| more).map(|last| last.id.to_string());
    let items = records.iter().map(|record| Match::of(http, record, claims.user)).collect();
    Ok(json(StatusCode::OK, &List::<Match> { items, next_cursor }))
}

/// A match, if `viewer` may know of it.
pub(super) async fn known(
    http: &Http,
    id: MatchId,
    viewer: UserId,
) -> Result<MatchRecord, Refusal> {
    let record = http.store.match_record(id).await?;
    let record = record.filter(|record| may_know(record, viewer));
    record.ok_or_else(|| MatchError::Unknown.into())
}

pub(super) async fn one(
    http: &Arc<Http>,
    request: Request,
    parameter: &str,
    connection: &Arc<Connection>,
) -> Result<Response, Refusal> {
    let claims = http.claims(&request)?;
    let id = match_id(parameter)?;
    let record = known(http, id, claims.user).await?;
    // Who is connected, its owner knows.
    if let Some(owner) = http.cluster.owner_elsewhere(id).await?
        && !is_passed_on(&request)
        && let Ok(response) = pass_on(http, request, &claims, &owner, connection).await
    {
        return Ok(response);
    }
    Ok(json(StatusCode::OK, &Match::of(http, &record, claims.user)))
}

pub(super) async fn join(
    http: &Arc<Http>,
    request: Request,
    parameter: &str,
    connection: &Arc<Connection>,
) -> Result<Response, Refusal> {
    let claims = http.claims(&request)?;
    let id = match_id(parameter)?;
    if let Some(owner) = http.registry.elsewhere(id).await? {
        return pass_on(http, request, &claims, &owner, connection).await;
    }
    let mut fields = Fields::read_optional(request).await?;
    let join_code = fields.text("join_code");
    fields.end()?;
    let user = http.account(claims.user).await?;
    let (seat, new) = http.registry.join(id, &user, join_code.as_deref()).await?;
    let status = if new { StatusCode::CREATED } else { StatusCode::OK };
    Ok(json(status, &Seated { seat }))
}

pub(super) async fn leave(
    http: &Arc<Http>,
    request: Request,
    parameter: &str,
    connection: &Arc<Connection>,
) -> Result<Response, Refusal> {
    let claims = http.claims(&request)?;
    let id = match_id(parameter)?;
    if let Some(owner) = http.registry.elsewhere(id).await? {
        return pass_on(http, request, &claims, &owner, connection).await;
    }
    http.registry.leave(id, claims.user).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

pub(super) async fn events(
    http: &Arc<Http>,
    request: Request,
    parameter: &str,
    connection: &Arc<Connection>,
) -> Result<Response, Refusal> {
    let claims = http.claims(&request)?;
    let query = Query::of(&request);
    let limit = limit(&query)?;
    let cursor = query.number("cursor", 0..=u64::MAX)?;
    let after = match cursor {
        Some(cursor) => cursor,
        None => query.number("after", 0..=u64::MAX)?.unwrap_or(0),
    };
    let record = known(http, match_id(parameter)?, claims.user).await?;
    // Who may see an event is for the rules to say, so a match that goes on is played by who answers.
    if let Some(owner) = http.registry.elsewhere(record.id).await? {
        return pass_on(http, request, &claims, &owner, connection).await;
    }
    let page = http.registry.events(&record, claims.user, after, limit).await?;
    let next_cursor = page.next.map(|seq| seq.to_string());
    let item = |(record, event): (crate::store::EventRecord, Box<RawValue>)| Logged {
        seq: record.seq,
        seat: record.seat,
        at: record.at,
        event,
    };
    let items = page.events.into_iter().map(item).collect();
    Ok(json(StatusCode::OK, &List::<Logged> { items, next_cursor }))
}
