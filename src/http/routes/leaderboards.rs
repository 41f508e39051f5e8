//! Leaderboards of games.

use hyper::StatusCode;
use serde::Serialize;

use super::{List, limit};
use crate::http::input::Query;
use crate::http::problem::Refusal;
use crate::http::server::{Request, Response};
use crate::http::{Http, json};
use crate::ids::{Timestamp, UserId};
use crate::ratings::{Rating, shown};
use crate::store::{Leader, Place};

/// A player's place.
#[derive(Serialize)]
struct Ranked {
    rank: u64,
    user: UserId,
    display_name: String,
    rating: f64,
    deviation: f64,
    wins: u64,
    losses: u64,
    draws: u64,
}

impl Ranked {
    fn of(rank: u64, leader: Leader, now: Timestamp) -> Self {
        let Leader { user, display_name, standing } = leader;
        let Rating { points, deviation, .. } = standing.rating(now);
        Self {
            rank,
            user,
            display_name,
            rating: shown(points),
            deviation: shown(deviation),
            wins: standing.wins,
            losses: standing.losses,
            draws: standing.draws,
        }
    }
}

/// Where a page goes on: the last place before it, and its rank. Whoever rises or falls meanwhile is
/// shown twice or not at all, as in any list that moves; ranks count on.
struct Cursor {
    rank: u64,
    place: Place,
}

impl Cursor {
    fn after(rank: u64, leader: &Leader) -> Self {
        let place = Place { points: leader.standing.rating.points, user: leader.user };
        Self { rank, place }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '.');
        let rank = parts.next()?.parse().ok().filter(|rank| *rank < u64::from(u32::MAX))?;
        let points = f64::from_bits(u64::from_str_radix(parts.next()?, 16).ok()?);
        let user = parts.next()?.parse().ok()?;
        points.is_finite().then_some(Self { rank, place: Place { points, user } })
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { rank, place: Place { points, user } } = self;
        write!(f, "{rank}.{:016x}.{user}", points.to_bits())
    }
}

pub(super) async fn leaderboard(
    http: &Http,
    request: &Request,
    game: &str,
) -> Result<Response, Refusal> {
    let game_type = http.registry.game_type(game)?;
    let game = &game_type.info().name;
    let query = Query::of(request);
    let limit = limit(&query)?;
    let cursor = query.parsed("cursor", "a next_cursor", Cursor::parse)?;
    let around = match query.text("around").as_deref() {
        Some("me") => Some(http.claims(request)?.user),
        _ => query.parsed("around", "the id of a user, or me", |id| id.parse().ok())?,
    };
    if cursor.is_some() && around.is_some() {
        return Err(Refusal::invalid_field("around", "goes without a cursor"));
    }
    // One more, to know whether there are.
    let (first, mut leaders) = if let Some(user) = around {
        let found = http.store.leaders_around(game, user, (limit - 1) / 2, limit + 1).await?;
        found.ok_or_else(|| Refusal::not_found("player on this leaderboard"))?
    } else {
        let place = cursor.as_ref().map(|cursor| cursor.place);
        let first = cursor.map_or(1, |cursor| cursor.rank + 1);
        (first, http.store.leaders(game, place, limit + 1).await?)
    };
    let more = leaders.len() > limit as usize;
    leaders.truncate(limit as usize);
    let last = leaders.last().filter(|_| more);
    let last_rank = first + leaders.len() as u64 - 1;
    let next_cursor = last.map(|last| Cursor::after(last_rank, last).to_string());
    let now = Timestamp::now();
    let ranked = (first..).zip(leaders).map(|(rank, leader)| Ranked::of(rank, leader, now));
    Ok(json(StatusCode::OK, &List { items: ranked.collect(), next_cursor }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written_and_others_are_not() {
        for points in [1500.0, -0.1, 2_345.678_901_234_567] {
            let place = Place { points, user: UserId::new() };
            let text = Cursor { rank: 7, place }.to_string();
            let read = Cursor::parse(&text).unwrap();
            assert_eq!((read.rank, read.place), (7, place));
            for broken in [&text[1..], &text[..text.len() - 1], &text.replace('.', ",")] {
                assert!(Cursor::parse(broken).is_none(), "{broken}");
            }
        }
        let id = UserId::new();
        for broken in [
            format!("1.7ff0000000000000.{id}"),
            format!("1.7ff8000000000000.{id}"),
            format!("99999999999999999999.3ff0000000000000.{id}"),
            format!("-1.3ff0000000000000.{id}"),
            String::new(),
        ] {
            assert!(Cursor::parse(&broken).is_none(), "{broken}");
        }
    }
}
