//! Ratings and leaderboards, in SQL.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::Sqlite;
use super::matches::{from_sql_int, to_sql_int};
use crate::games::Seat;
use crate::ids::{Timestamp, UserId};
use crate::ratings::{Rating, Standing, settle};
use crate::store::{Leader, MatchChange, Place, StoreError, bucket};

/// A standing, as [`read_standing`] takes it.
const STANDING: &str =
    "ratings.user_id, rating, deviation, volatility, wins, losses, draws, rated_at";
/// The highest first.
const DOWNWARDS: &str = "ORDER BY bucket DESC, rating DESC, user_id DESC LIMIT ?";

/// Moves the ratings of a match's players by its end.
pub(super) fn rate(db: &Connection, change: &MatchChange) -> Result<(), StoreError> {
    let Some(outcome) = &change.outcome else { return Ok(()) };
    let sql = "SELECT game FROM matches WHERE id = ?";
    let game: String = db.prepare_cached(sql)?.query_row([change.id.0], |row| row.get(0))?;
    let sql = "SELECT seat, user_id FROM match_players
        WHERE match_id = ? AND user_id IS NOT NULL ORDER BY seat";
    let seats: Vec<(u8, UserId)> = db
        .prepare_cached(sql)?
        .query_map([change.id.0], |row| Ok((row.get(0)?, UserId(row.get(1)?))))?
        .collect::<Result<_, _>>()?;
    let mut players = Vec::with_capacity(seats.len());
    for (seat, user) in &seats {
        let known = standing(db, &game, *user)?;
        players.push((Seat(*seat), known.unwrap_or_else(|| Standing::new(change.at))));
    }
    let changes = settle(&mut players, outcome, change.at);
    if changes.is_empty() {
        return Ok(());
    }
    for ((_, user), (_, standing)) in seats.iter().zip(&players) {
        put(db, &game, *user, standing)?;
    }
    let json =
        serde_json::to_string(&changes).map_err(|error| StoreError::Corrupt(error.to_string()))?;
    db.prepare_cached("UPDATE matches SET ratings = ? WHERE id = ?")?
        .execute(params![json, change.id.0])?;
    Ok(())
}

fn put(db: &Connection, game: &str, user: UserId, standing: &Standing) -> Result<(), StoreError> {
    let Standing { rating, wins, losses, draws, rated_at } = standing;
    db.prepare_cached(
        "INSERT INTO ratings (game, user_id, rating, deviation, volatility, bucket, wins, losses,
         draws, rated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT DO UPDATE SET rating = excluded.rating, deviation = excluded.deviation,
         volatility = excluded.volatility, bucket = excluded.bucket, wins = excluded.wins,
         losses = excluded.losses, draws = excluded.draws, rated_at = excluded.rated_at",
    )?
    .execute(params![
        game,
        user.0,
        rating.points,
        rating.deviation,
        rating.volatility,
        bucket(rating.points),
        to_sql_int(*wins),
        to_sql_int(*losses),
        to_sql_int(*draws),
        rated_at.0
    ])?;
    Ok(())
}

fn standing(db: &Connection, game: &str, user: UserId) -> Result<Option<Standing>, StoreError> {
    let sql = format!("SELECT {STANDING} FROM ratings WHERE game = ? AND user_id = ?");
    let mut statement = db.prepare_cached(&sql)?;
    Ok(statement.query_row(params![game, user.0], read_standing).optional()?)
}

impl Sqlite {
    pub(in crate::store) async fn leaders(
        &self,
        game: &str,
        below: Option<Place>,
        limit: u32,
    ) -> Result<Vec<Leader>, StoreError> {
        let game = game.to_owned();
        self.read(move |db| match below {
            None => {
                let condition = format!("game = ? AND bucket IS NOT NULL {DOWNWARDS}");
                select(db, &condition, params![game, limit])
            }
            Some(Place { points, user }) => {
                let condition =
                    format!("game = ? AND (bucket, rating, user_id) < (?, ?, ?) {DOWNWARDS}");
                select(db, &condition, params![game, bucket(points), points, user.0, limit])
            }
        })
        .await
    }

    pub(in crate::store) async fn leaders_around(
        &self,
        game: &str,
        user: UserId,
        above: u32,
        limit: u32,
    ) -> Result<Option<(u64, Vec<Leader>)>, StoreError> {
        let game = game.to_owned();
        self.read(move |db| {
            // One moment of the store, so that the rank is of what is shown.
            let moment = db.unchecked_transaction()?;
            let own = standing(db, &game, user)?.filter(|own| own.matches() > 0);
            let Some(own) = own else { return Ok(None) };
            let points = own.rating.points;
            let place = params![game, bucket(points), points, user.0];
            let better: u64 = db
                .prepare_cached(
                    "SELECT (SELECT coalesce(sum(players), 0) FROM rating_counts
                             WHERE game = ?1 AND bucket > ?2)
                          + (SELECT count(*) FROM ratings
                             WHERE game = ?1 AND bucket = ?2 AND (rating, user_id) > (?3, ?4))",
                )?
                .query_row(place, |row| from_sql_int(row, 0))?;
            let upwards = "game = ? AND (bucket, rating, user_id) > (?, ?, ?)
                 ORDER BY bucket, rating, user_id LIMIT ?";
            let place = params![game, bucket(points), points, user.0, above];
            let mut leaders = select(db, upwards, place)?;
            let first = better + 1 - leaders.len() as u64;
            let rest = limit.saturating_sub(u32::try_from(leaders.len()).unwrap_or(limit));
            let downwards =
                format!("game = ? AND (bucket, rating, user_id) <= (?, ?, ?) {DOWNWARDS}");
            let place = params![game, bucket(points), points, user.0, rest];
            leaders.append(&mut select(db, &downwards, place)?);
            moment.commit()?;
            Ok(Some((first, leaders)))
        })
        .await
    }
}

fn select(
    db: &Connection,
    condition: &str,
    arguments: impl rusqlite::Params,
) -> Result<Vec<Leader>, StoreError> {
    // Inside, so that the index alone says which rows are read.
    let sql = format!(
        "SELECT {STANDING}, display_name FROM (SELECT * FROM ratings WHERE {condition}) AS ratings
         JOIN users ON users.id = ratings.user_id ORDER BY bucket DESC, rating DESC, user_id DESC"
    );
    let mut statement = db.prepare_cached(&sql)?;
    let leader = |row: &Row| {
        let (user, standing) = (UserId(row.get(0)?), read_standing(row)?);
        Ok(Leader { user, display_name: row.get(8)?, standing })
    };
    Ok(statement.query_map(arguments, leader)?.collect::<Result<_, _>>()?)
}

fn read_standing(row: &Row) -> rusqlite::Result<Standing> {
    Ok(Standing {
        rating: Rating { points: row.get(1)?, deviation: row.get(2)?, volatility: row.get(3)? },
        wins: from_sql_int(row, 4)?,
        losses: from_sql_int(row, 5)?,
        draws: from_sql_int(row, 6)?,
        rated_at: Timestamp(row.get(7)?),
    })
}
