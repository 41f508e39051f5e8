//! Matches and their logs, in SQL.

use std::sync::Arc;

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, ToSql, params};
use serde::de::DeserializeOwned;

use super::{Sqlite, in_savepoint, ratings};
use crate::games::Seat;
use crate::ids::{MatchId, Timestamp, UserId};
use crate::ratings::RatingChange;
use crate::store::{
    Appended, EventRecord, MatchChange, MatchFilter, MatchRecord, MatchState, PlayerRecord,
    Snapshot, StoreError, Visibility,
};

const MATCH_COLUMNS: &str = "id, game, game_version, seed, options, seats, state, visibility, \
                             join_code, created_at, seq, outcome, ratings, snapshot";

impl Sqlite {
    pub(in crate::store) async fn append(
        &self,
        changes: Arc<Vec<MatchChange>>,
    ) -> Result<Appended, StoreError> {
        self.write(move |db| {
            let mut appended = Appended::default();
            for change in changes.iter() {
                match in_savepoint(db, |db| append_one(db, change)) {
                    Err(StoreError::Conflict(_) | StoreError::Corrupt(_)) => {
                        if !stands(db, change)? {
                            appended.refused.push(change.id);
                            continue;
                        }
                    }
                    other => other?,
                }
                if change.rated
                    && let Some(ratings) = ratings_of(db, change.id)?
                {
                    appended.ratings.insert(change.id, ratings);
                }
            }
            Ok(appended)
        })
        .await
    }

    pub(in crate::store) async fn match_record(
        &self,
        id: MatchId,
    ) -> Result<Option<MatchRecord>, StoreError> {
        self.read(move |db| {
            let record = db
                .prepare_cached(&format!("SELECT {MATCH_COLUMNS} FROM matches WHERE id = ?"))?
                .query_row([id.0], read_match)
                .optional()?;
            record.map(|record| with_players(db, record)).transpose()
        })
        .await
    }

    pub(in crate::store) async fn keep_module(
        &self,
        version: String,
        code: Vec<u8>,
    ) -> Result<(), StoreError> {
        self.write(move |db| {
            db.prepare_cached("INSERT INTO modules VALUES (?, ?) ON CONFLICT DO NOTHING")?
                .execute((version, code))?;
            Ok(())
        })
        .await
    }

    pub(in crate::store) async fn module(
        &self,
        version: String,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(move |db| {
            let sql = "SELECT code FROM modules WHERE version = ?";
            Ok(db.prepare_cached(sql)?.query_row([version], |row| row.get(0)).optional()?)
        })
        .await
    }

    pub(in crate::store) async fn log_snapshot(
        &self,
        id: MatchId,
    ) -> Result<Option<Snapshot>, StoreError> {
        self.read(move |db| {
            let snapshot = db
                .prepare_cached("SELECT seq, state FROM match_snapshots WHERE match_id = ?")?
                .query_row([id.0], |row| {
                    Ok(Snapshot { seq: from_sql_int(row, 0)?, state: row.get(1)? })
                })
                .optional()?;
            Ok(snapshot)
        })
        .await
    }

    pub(in crate::store) async fn events(
        &self,
        id: MatchId,
        after: u64,
        limit: u32,
    ) -> Result<Vec<EventRecord>, StoreError> {
        self.read(move |db| {
            let events = db
                .prepare_cached(
                    "SELECT seq, at, seat, command_id, user_id, display_name, structural, event
                     FROM match_events LEFT JOIN users ON users.id = user_id
                     WHERE match_id = ? AND seq > ? ORDER BY seq LIMIT ?",
                )?
                .query_map(params![id.0, to_sql_int(after), limit], read_event)?
                .collect::<Result<_, _>>()?;
            Ok(events)
        })
        .await
    }

    pub(in crate::store) async fn matches(
        &self,
        viewer: UserId,
        filter: MatchFilter,
    ) -> Result<Vec<MatchRecord>, StoreError> {
        self.read(move |db| {
            let public = if filter.mine { "" } else { "visibility = 'public' OR " };
            let mut sql = format!(
                "SELECT {MATCH_COLUMNS} FROM matches WHERE ({public}id IN
                 (SELECT match_id FROM match_players WHERE user_id = ?))"
            );
            let mut arguments: Vec<Box<dyn ToSql>> = vec![Box::new(viewer.0)];
            let mut and = |condition: &str, argument: Box<dyn ToSql>| {
                sql.push_str(" AND ");
                sql.push_str(condition);
                arguments.push(argument);
            };
            if let Some(game) = filter.game {
                and("game = ?", Box::new(game));
            }
            if let Some(state) = filter.state {
                and("state = ?", Box::new(state.as_str()));
            }
            if let Some(before) = filter.before {
                and("id < ?", Box::new(before.0));
            }
            and("1 ORDER BY id DESC LIMIT ?", Box::new(filter.limit));
            let records = db
                .prepare_cached(&sql)?
                .query_map(rusqlite::params_from_iter(arguments), read_match)?
                .collect::<Result<Vec<_>, _>>()?;
            records.into_iter().map(|record| with_players(db, record)).collect()
        })
        .await
    }

    pub(in crate::store) async fn stale_matches(
        &self,
        after: Option<MatchId>,
        open_before: Timestamp,
        before: Timestamp,
        limit: u32,
    ) -> Result<Vec<MatchId>, StoreError> {
        self.read(move |db| {
            let ids = db
                .prepare_cached(
                    "SELECT id FROM matches WHERE state IN ('open', 'running')
                     AND (?1 IS NULL OR id > ?1) AND updated_at <
                     CASE WHEN state = 'open' AND visibility = 'public' THEN ?2 ELSE ?3 END
                     ORDER BY id LIMIT ?4",
                )?
                .query_map(params![after.map(|id| id.0), open_before.0, before.0, limit], |row| {
                    row.get(0).map(MatchId)
                })?
                .collect::<Result<_, _>>()?;
            Ok(ids)
        })
        .await
    }
}

fn append_one(db: &Connection, change: &MatchChange) -> Result<(), StoreError> {
    let id = change.id.0;
    if let Some(record) = &change.create {
        insert_match(db, record, change.at)?;
    }
    for event in &change.events {
        db.prepare_cached(
            "INSERT INTO match_events (match_id, seq, at, seat, command_id, user_id, structural,
             event) VALUES (?, ?, ?, ?, ?, (SELECT id FROM users WHERE id = ?), ?, ?)",
        )?
        .execute(params![
            id,
            to_sql_int(event.seq),
            event.at.0,
            event.seat.map(|seat| seat.0),
            event.command_id.map(to_sql_int),
            event.user.map(|user| user.0),
            event.structural,
            event.event
        ])?;
    }
    for (seat, user) in &change.seats {
        // A user who was deleted a moment ago leaves the seat to nobody in particular.
        match user {
            Some(user) => db
                .prepare_cached(
                    "INSERT OR REPLACE INTO match_players (match_id, seat, user_id)
                     VALUES (?, ?, (SELECT id FROM users WHERE id = ?))",
                )?
                .execute(params![id, seat.0, user.0])?,
            None => db
                .prepare_cached("DELETE FROM match_players WHERE match_id = ? AND seat = ?")?
                .execute(params![id, seat.0])?,
        };
    }
    if let Some(snapshot) = &change.log_snapshot {
        db.prepare_cached("INSERT OR REPLACE INTO match_snapshots VALUES (?, ?, ?)")?
            .execute(params![id, to_sql_int(snapshot.seq), snapshot.state])?;
    }
    let outcome = change.outcome.as_ref().map(serde_json::to_string).transpose();
    let mut update = db.prepare_cached(
        "UPDATE matches SET state = ?, seq = ?, outcome = ?, snapshot = coalesce(?, snapshot),
         updated_at = ? WHERE id = ? AND seq = ?",
    )?;
    let changed = update.execute(params![
        change.state.as_str(),
        to_sql_int(change.seq),
        outcome.map_err(|error| StoreError::Corrupt(error.to_string()))?,
        change.snapshot,
        change.at.0,
        id,
        to_sql_int(change.previous_seq)
    ])?;
    match changed {
        1 if change.rated => ratings::rate(db, change),
        1 => Ok(()),
        _ => Err(StoreError::Conflict(format!("the match is not at {}", change.previous_seq))),
    }
}

/// Whether a change that was not written just now was before: its last event is in the log. Where
/// there is no event there is nothing but a later word of the same writer that it can have missed.
fn stands(db: &Connection, change: &MatchChange) -> Result<bool, StoreError> {
    let last = change.events.last();
    let stands = db
        .prepare_cached(
            "SELECT ?2 IS NULL OR EXISTS (SELECT 1 FROM match_events
                 WHERE match_id = ?1 AND seq = ?2 AND at = ?3)
             FROM matches WHERE id = ?1",
        )?
        .query_row(
            params![
                change.id.0,
                last.map(|event| to_sql_int(event.seq)),
                last.map(|event| event.at.0)
            ],
            |row| row.get(0),
        )
        .optional()?;
    Ok(stands.unwrap_or(false))
}

/// What the end of a match has made of ratings.
fn ratings_of(db: &Connection, id: MatchId) -> Result<Option<Vec<RatingChange>>, StoreError> {
    let ratings: Option<String> = db
        .prepare_cached("SELECT ratings FROM matches WHERE id = ?")?
        .query_row([id.0], |row| row.get(0))?;
    Ok(ratings.map(|json| parsed(0, &json)).transpose()?)
}

fn insert_match(db: &Connection, record: &MatchRecord, at: Timestamp) -> Result<(), StoreError> {
    db.prepare_cached(
        "INSERT INTO matches (id, game, game_version, seed, options, seats, state, visibility,
         join_code, created_at, updated_at, seq) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
    )?
    .execute(params![
        record.id.0,
        record.game,
        record.game_version,
        record.seed.cast_signed(),
        record.options,
        record.seats,
        record.state.as_str(),
        record.visibility.as_str(),
        record.join_code,
        record.created_at.0,
        at.0
    ])?;
    Ok(())
}

/// Numbers of events and commands stay below 2^53, JSON's bound for them.
pub(super) fn to_sql_int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn from_sql_int(row: &Row, column: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, number))
}

/// A column that holds a word of an enum, or JSON.
fn parsed<T: DeserializeOwned>(column: usize, json: &str) -> rusqlite::Result<T> {
    serde_json::from_str(json).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
    })
}

pub(super) fn word<T: DeserializeOwned>(row: &Row, column: usize) -> rusqlite::Result<T> {
    let word: String = row.get(column)?;
    parsed(column, &format!("\"{word}\""))
}

fn read_match(row: &Row) -> rusqlite::Result<MatchRecord> {
    let outcome: Option<String> = row.get(11)?;
    let ratings: Option<String> = row.get(12)?;
    Ok(MatchRecord {
        id: MatchId(row.get(0)?),
        game: row.get(1)?,
        game_version: row.get(2)?,
        seed: row.get::<_, i64>(3)?.cast_unsigned(),
        options: row.get(4)?,
        seats: row.get(5)?,
        state: word::<MatchState>(row, 6)?,
        visibility: word::<Visibility>(row, 7)?,
        join_code: row.get(8)?,
        created_at: Timestamp(row.get(9)?),
        seq: from_sql_int(row, 10)?,
        outcome: outcome.map(|json| parsed(11, &json)).transpose()?,
        ratings: ratings.map(|json| parsed(12, &json)).transpose()?,
        snapshot: row.get(13)?,
        players: Vec::new(),
    })
}

fn with_players(db: &Connection, mut record: MatchRecord) -> Result<MatchRecord, StoreError> {
    record.players = db
        .prepare_cached(
            "SELECT seat, user_id, display_name FROM match_players
             LEFT JOIN users ON users.id = user_id WHERE match_id = ? ORDER BY seat",
        )?
        .query_map([record.id.0], |row| {
            Ok(PlayerRecord {
                seat: Seat(row.get(0)?),
                user: row.get::<_, Option<_>>(1)?.map(UserId),
                display_name: row.get(2)?,
            })
        })?
        .collect::<Result<_, _>>()?;
    Ok(record)
}

fn read_event(row: &Row) -> rusqlite::Result<EventRecord> {
    Ok(EventRecord {
        seq: from_sql_int(row, 0)?,
        at: Timestamp(row.get(1)?),
        seat: row.get::<_, Option<_>>(2)?.map(Seat),
        command_id: row.get::<_, Option<i64>>(3)?.map(i64::cast_unsigned),
        user: row.get::<_, Option<_>>(4)?.map(UserId),
        display_name: row.get(5)?,
        structural: row.get(6)?,
        event: row.get(7)?,
    })
}
