//! Matches and their logs, in SQL.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use deadpool_postgres::{ClientWrapper, Object};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio_postgres::Row;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::{Busy, Param, Postgres, in_time};
use crate::games::Seat;
use crate::ids::{MatchId, Timestamp, UserId};
use crate::store::pipeline::BATCHES_MAX;
use crate::store::{
    Appended, EventRecord, MatchChange, MatchFilter, MatchRecord, MatchState, PlayerRecord,
    Snapshot, StoreError,
};

/// A match and, as JSON, its players.
const MATCH_COLUMNS: &str = "id, game, game_version, seed, options, seats, state, visibility,
    join_code, created_at, seq, outcome, ratings, snapshot,
    (SELECT coalesce(json_agg(json_build_object('seat', seat, 'user', user_id,
            'display_name', display_name) ORDER BY seat), '[]')::text
     FROM match_players LEFT JOIN users ON users.id = user_id WHERE match_id = matches.id)";

/// What only the owner's own next change meets. Without it (see Cargo.toml) the chaos run must fail.
const FENCE: &str = if cfg!(feature = "unfenced") {
    "true"
} else {
    "matches.seq = change.previous_seq AND matches.epoch = change.epoch
            AND matches.node_id IS NOT DISTINCT FROM change.node_id"
};

/// A number that is taken is refused, but for that proof.
const WHERE_TAKEN: &str = if cfg!(feature = "unfenced") { "ON CONFLICT DO NOTHING" } else { "" };

/// Everything that happened, of all matches, in one statement: one round trip and one commit. A match
/// that is another's by now, or not at the number that its change follows from, is left as it is, with all that belongs
/// to it; those that were written are given. A node whose row is gone makes no match: whoever ends it
/// knows which ones it has made ([`super::tickets`]).
static APPEND: LazyLock<String> = LazyLock::new(|| {
    format!(
        "WITH change AS (
        SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::text[], $5::text[],
                             $6::text[], $7::bigint[], $30::uuid[], $31::bigint[])
        AS t (id, previous_seq, seq, state, outcome, snapshot, at, node_id, epoch)
    ), updated AS (
        UPDATE matches SET state = change.state, seq = change.seq, outcome = change.outcome,
            snapshot = coalesce(change.snapshot, matches.snapshot), updated_at = change.at
        FROM change WHERE matches.id = change.id AND {FENCE}
        RETURNING matches.id
    ), alive AS (
        SELECT id FROM nodes WHERE id = ANY($30) FOR KEY SHARE
    ), created AS (
        INSERT INTO matches (id, game, game_version, seed, options, seats, visibility, join_code,
                             created_at, state, seq, outcome, snapshot, updated_at, node_id, epoch)
        SELECT t.*, state, seq, outcome, snapshot, at, node_id, epoch
        FROM unnest($8::uuid[], $9::text[], $10::text[], $11::bigint[], $12::text[],
                    $13::smallint[], $14::text[], $15::text[], $16::bigint[])
        AS t (id, game, game_version, seed, options, seats, visibility, join_code, created_at)
        JOIN change ON change.id = t.id
        WHERE node_id IS NULL OR node_id IN (SELECT alive.id FROM alive)
        ON CONFLICT DO NOTHING RETURNING id
    ), written AS (
        SELECT id FROM updated UNION ALL SELECT id FROM created
    ), events AS (
        INSERT INTO match_events (match_id, seq, at, seat, command_id, user_id, structural, event)
        SELECT t.match_id, t.seq, t.at, t.seat, t.command_id, users.id, t.structural, t.event
        FROM unnest($17::uuid[], $18::bigint[], $19::bigint[], $20::smallint[], $21::bigint[],
                    $22::uuid[], $23::boolean[], $24::text[])
        AS t (match_id, seq, at, seat, command_id, user_id, structural, event)
        JOIN written ON written.id = t.match_id LEFT JOIN users ON users.id = t.user_id
        {WHERE_TAKEN}
    ), given_up AS (
        DELETE FROM match_players AS player
        USING unnest($25::uuid[], $26::smallint[]) AS t (match_id, seat), written
        WHERE written.id = t.match_id AND player.match_id = t.match_id AND player.seat = t.seat
    ), taken AS (
        INSERT INTO match_players (match_id, seat, user_id)
        SELECT t.match_id, t.seat, users.id
        FROM unnest($27::uuid[], $28::smallint[], $29::uuid[]) AS t (match_id, seat, user_id)
        JOIN written ON written.id = t.match_id LEFT JOIN users ON users.id = t.user_id
        ON CONFLICT (match_id, seat) DO UPDATE SET user_id = excluded.user_id
    ), snapshots AS (
        INSERT INTO match_snapshots (match_id, seq, state)
        SELECT t.* FROM unnest($32::uuid[], $33::bigint[], $34::text[]) AS t (match_id, seq, state)
        JOIN written ON written.id = t.match_id
        ON CONFLICT (match_id) DO UPDATE SET seq = excluded.seq, state = excluded.state
    )
    SELECT id FROM written"
    )
});

/// Of changes that were not written just now, those whose last event is in the log, written under
/// their own node and epoch: by this writer, whose answer was lost. Where there is no event there is
/// nothing but a later word of the same writer that such a change can have missed.
const STANDING: &str = "SELECT change.id
    FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[])
        AS change (id, node_id, epoch, last_seq, last_at)
    JOIN matches ON matches.id = change.id AND matches.epoch = change.epoch
        AND matches.node_id IS NOT DISTINCT FROM change.node_id
    WHERE last_seq IS NULL OR EXISTS (SELECT FROM match_events
        WHERE match_id = change.id AND seq = last_seq AND at = last_at)";

/// Tries to write a batch in which an account goes at that very moment.
const DANGLING_RETRIES_MAX: usize = 3;

impl Postgres {
    pub(in crate::store) async fn append(
        &self,
        changes: Arc<Vec<MatchChange>>,
    ) -> Result<Appended, StoreError> {
        let mut tries = 0;
        let conflict = loop {
            match self.append_all(&changes).await {
                Err(StoreError::Conflict(_)) if tries < DANGLING_RETRIES_MAX => tries += 1,
                Err(error @ (StoreError::Conflict(_) | StoreError::Corrupt(_))) => break error,
                answer => return answer,
            }
        };
        // One of them contradicts what is there: it stops its match and no other.
        tracing::warn!(error = %conflict, "a batch of changes is taken apart");
        let mut all = Appended::default();
        for change in changes.iter() {
            let change = std::slice::from_ref(change);
            let one = match self.append_all(change).await {
                Err(StoreError::Conflict(_) | StoreError::Corrupt(_)) => {
                    self.appended(change, &Columns::of(change), Appended::default(), &[]).await?
                }
                answer => answer?,
            };
            all.refused.extend(one.refused);
            all.ratings.extend(one.ratings);
        }
        Ok(all)
    }

    async fn append_all(&self, changes: &[MatchChange]) -> Result<Appended, StoreError> {
        // Closed where it fails: a transaction may be left open on it.
        let mut busy = Busy(Some(self.pool.get().await?));
        let Some(client) = &busy.0 else { return Ok(Appended::default()) };
        let appended = in_time(self.answer_timeout, self.append_by(client, changes)).await??;
        drop(busy.0.take());
        Ok(appended)
    }

    /// Batches that may be under way by one connection. A pooler that keeps no statements may be too
    /// old to keep apart what is sent before it was asked for.
    pub(in crate::store) fn batches_max(&self) -> u32 {
        if self.prepare { BATCHES_MAX } else { 1 }
    }

    /// A connection for [`Self::append_by`], which is none of the pool's.
    pub(in crate::store) async fn connect_log(&self) -> Result<ClientWrapper, StoreError> {
        let client = Object::take(self.pool.get().await?);
        // Prepared now, so that each batch is sent at once. It writes nothing.
        let columns = Columns::default();
        in_time(self.answer_timeout, self.run(&client, &APPEND, &columns.params())).await??;
        Ok(client)
    }

    /// How long whoever waits for [`Self::append_by`] should do that, once nothing is before it.
    pub(in crate::store) fn answer_timeout(&self) -> Duration {
        self.answer_timeout
    }

    /// As [`Self::append`] by a connection of its own, on which other batches may be under way. What
    /// contradicts what is there fails all of it.
    pub(in crate::store) async fn append_by(
        &self,
        connection: &ClientWrapper,
        changes: &[MatchChange],
    ) -> Result<Appended, StoreError> {
        let columns = Columns::of(changes);
        let rates = changes.iter().any(|change| change.rated);
        if rates {
            connection.batch_execute("BEGIN").await?;
        }
        let rows = self.run(connection, &APPEND, &columns.params()).await?;
        let written: Vec<Uuid> = rows.iter().map(|row| row.get(0)).collect();
        let mut appended = Appended::default();
        if rates {
            appended.ratings = self.rate(connection, changes, &written).await?;
            connection.batch_execute("COMMIT").await?;
        }
        self.appended(changes, &columns, appended, &written).await
    }

    /// Adds to the answer what it lacks where some are not among those `written` now: they were
    /// before, or are refused.
    async fn appended(
        &self,
        changes: &[MatchChange],
        columns: &Columns<'_>,
        mut appended: Appended,
        written: &[Uuid],
    ) -> Result<Appended, StoreError> {
        if written.len() < columns.ids.len() {
            appended.refused = self.not_standing(columns, written).await?;
            let told = |change: &&MatchChange| {
                !appended.ratings.contains_key(&change.id) && !appended.refused.contains(&change.id)
            };
            let ended = changes.iter().filter(|change| change.rated).filter(told);
            let ended: Vec<Uuid> = ended.map(|change| change.id.0).collect();
            if !ended.is_empty() {
                appended.ratings.extend(self.ratings_of(&ended).await?);
            }
        }
        Ok(appended)
    }

    /// The matches whose changes are not `written` now and were not before.
    async fn not_standing(
        &self,
        columns: &Columns<'_>,
        written: &[Uuid],
    ) -> Result<Vec<MatchId>, StoreError> {
        let params: [Param; 5] = [
            (&columns.ids, Type::UUID_ARRAY),
            (&columns.nodes, Type::UUID_ARRAY),
            (&columns.epochs, Type::INT8_ARRAY),
            (&columns.last_seqs, Type::INT8_ARRAY),
            (&columns.last_ats, Type::INT8_ARRAY),
        ];
        let rows = self.query(STANDING, &params).await?;
        let mut standing: HashSet<Uuid> = rows.iter().map(|row| row.get(0)).collect();
        standing.extend(written);
        let refused = columns.ids.iter().filter(|id| !standing.contains(id));
        Ok(refused.map(|id| MatchId(*id)).collect())
    }

    pub(in crate::store) async fn match_record(
        &self,
        id: MatchId,
    ) -> Result<Option<MatchRecord>, StoreError> {
        let sql = format!("SELECT {MATCH_COLUMNS} FROM matches WHERE id = $1");
        let rows = self.query(&sql, &[(&id.0, Type::UUID)]).await?;
        rows.first().map(read_match).transpose()
    }

    pub(in crate::store) async fn keep_module(
        &self,
        version: String,
        code: Vec<u8>,
    ) -> Result<(), StoreError> {
        let params: [Param; 2] = [(&version, Type::TEXT), (&code, Type::BYTEA)];
        let sql = "INSERT INTO modules VALUES ($1, $2) ON CONFLICT DO NOTHING";
        self.query(sql, &params).await.map(drop)
    }

    pub(in crate::store) async fn module(
        &self,
        version: String,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let params: [Param; 1] = [(&version, Type::TEXT)];
        let rows = self.query("SELECT code FROM modules WHERE version = $1", &params).await?;
        Ok(rows.first().map(|row| row.get(0)))
    }

    pub(in crate::store) async fn log_snapshot(
        &self,
        id: MatchId,
    ) -> Result<Option<Snapshot>, StoreError> {
        let sql = "SELECT seq, state FROM match_snapshots WHERE match_id = $1";
        let rows = self.query(sql, &[(&id.0, Type::UUID)]).await?;
        let snapshot =
            |row: &Row| Ok(Snapshot { seq: from_bigint(row.get(0))?, state: row.get(1) });
        rows.first().map(snapshot).transpose()
    }

    pub(in crate::store) async fn events(
        &self,
        id: MatchId,
        after: u64,
        limit: u32,
    ) -> Result<Vec<EventRecord>, StoreError> {
        let params: [Param; 3] =
            [(&id.0, Type::UUID), (&to_bigint(after), Type::INT8), (&i64::from(limit), Type::INT8)];
        let sql = "SELECT seq, at, seat, command_id, user_id, display_name, structural, event
             FROM match_events LEFT JOIN users ON users.id = user_id
             WHERE match_id = $1 AND seq > $2 ORDER BY seq LIMIT $3";
        self.query(sql, &params).await?.iter().map(read_event).collect()
    }

    pub(in crate::store) async fn matches(
        &self,
        viewer: UserId,
        filter: MatchFilter,
    ) -> Result<Vec<MatchRecord>, StoreError> {
        let public = if filter.mine { "" } else { "visibility = 'public' OR " };
        let mut sql = format!(
            "SELECT {MATCH_COLUMNS} FROM matches WHERE ({public}id IN
             (SELECT match_id FROM match_players WHERE user_id = $1))"
        );
        let (state, before) = (filter.state.map(MatchState::as_str), filter.before.map(|id| id.0));
        let limit = i64::from(filter.limit);
        let mut params: Vec<Param> = vec![(&viewer.0, Type::UUID)];
        if filter.game.is_some() {
            params.push((&filter.game, Type::TEXT));
            let _ = write!(sql, " AND game = ${}", params.len());
        }
        if state.is_some() {
            params.push((&state, Type::TEXT));
            let _ = write!(sql, " AND state = ${}", params.len());
        }
        if before.is_some() {
            params.push((&before, Type::UUID));
            let _ = write!(sql, " AND id < ${}", params.len());
        }
        params.push((&limit, Type::INT8));
        let _ = write!(sql, " ORDER BY id DESC LIMIT ${}", params.len());
        self.query(&sql, &params).await?.iter().map(read_match).collect()
    }

    pub(in crate::store) async fn stale_matches(
        &self,
        after: Option<MatchId>,
        open_before: Timestamp,
        before: Timestamp,
        limit: u32,
    ) -> Result<Vec<MatchId>, StoreError> {
        let (after, limit) = (after.map_or(Uuid::nil(), |id| id.0), i64::from(limit));
        let params: [Param; 4] = [
            (&after, Type::UUID),
            (&open_before.0, Type::INT8),
            (&before.0, Type::INT8),
            (&limit, Type::INT8),
        ];
        let sql = "SELECT id FROM matches WHERE state IN ('open', 'running') AND id > $1
             AND updated_at < CASE WHEN state = 'open' AND visibility = 'public' THEN $2 ELSE $3 END
             ORDER BY id LIMIT $4";
        let rows = self.query(sql, &params).await?;
        Ok(rows.iter().map(|row| MatchId(row.get(0))).collect())
    }
}

/// Changes column by column, as `unnest` takes them; those of one match are one.
#[derive(Default)]
struct Columns<'a> {
    ids: Vec<Uuid>,
    previous_seqs: Vec<i64>,
    seqs: Vec<i64>,
    states: Vec<&'static str>,
    outcomes: Vec<Option<String>>,
    snapshots: Vec<Option<&'a str>>,
    ats: Vec<i64>,
    nodes: Vec<Option<Uuid>>,
    epochs: Vec<i64>,
    /// Of the last event, if there is one.
    last_seqs: Vec<Option<i64>>,
    last_ats: Vec<Option<i64>>,
    new: NewColumns<'a>,
    events: EventColumns<'a>,
    given_up: (Vec<Uuid>, Vec<i16>),
    taken: (Vec<Uuid>, Vec<i16>, Vec<Option<Uuid>>),
    log_snapshots: (Vec<Uuid>, Vec<i64>, Vec<&'a str>),
}

#[derive(Default)]
struct NewColumns<'a> {
    ids: Vec<Uuid>,
    games: Vec<&'a str>,
    game_versions: Vec<&'a str>,
    seeds: Vec<i64>,
    options: Vec<&'a str>,
    seats: Vec<i16>,
    visibilities: Vec<&'static str>,
    join_codes: Vec<Option<&'a str>>,
    created_ats: Vec<i64>,
}

#[derive(Default)]
struct EventColumns<'a> {
    match_ids: Vec<Uuid>,
    seqs: Vec<i64>,
    ats: Vec<i64>,
    seats: Vec<Option<i16>>,
    command_ids: Vec<Option<i64>>,
    users: Vec<Option<Uuid>>,
    structural: Vec<bool>,
    events: Vec<&'a str>,
}

impl<'a> Columns<'a> {
    fn of(changes: &'a [MatchChange]) -> Self {
        let mut columns = Self::default();
        let mut places = HashMap::new();
        // The last word on each seat.
        let mut seats: HashMap<(Uuid, Seat), Option<Uuid>> = HashMap::new();
        let mut log_snapshots: HashMap<Uuid, &Snapshot> = HashMap::new();
        for change in changes {
            let id = change.id.0;
            let place = *places.entry(id).or_insert_with(|| columns.begin(change));
            columns.seqs[place] = to_bigint(change.seq);
            columns.states[place] = change.state.as_str();
            columns.outcomes[place] = change
                .outcome
                .as_ref()
                .map(|outcome| serde_json::to_string(outcome).expect("an outcome is JSON"));
            columns.snapshots[place] = change.snapshot.as_deref().or(columns.snapshots[place]);
            columns.ats[place] = change.at.0;
            if let Some(last) = change.events.last() {
                columns.last_seqs[place] = Some(to_bigint(last.seq));
                columns.last_ats[place] = Some(last.at.0);
            }
            columns.events.extend(id, &change.events);
            for (seat, user) in &change.seats {
                seats.insert((id, *seat), user.map(|user| user.0));
            }
            if let Some(record) = &change.create {
                columns.new.push(record);
            }
            if let Some(snapshot) = &change.log_snapshot {
                log_snapshots.insert(id, snapshot);
            }
        }
        for (id, snapshot) in log_snapshots {
            columns.log_snapshots.0.push(id);
            columns.log_snapshots.1.push(to_bigint(snapshot.seq));
            columns.log_snapshots.2.push(&snapshot.state);
        }
        for ((id, seat), user) in seats {
            let seat = i16::from(seat.0);
            if user.is_some() {
                columns.taken.0.push(id);
                columns.taken.1.push(seat);
                columns.taken.2.push(user);
            } else {
                columns.given_up.0.push(id);
                columns.given_up.1.push(seat);
            }
        }
        columns
    }

    /// The place of a match that comes for the first time.
    fn begin(&mut self, change: &MatchChange) -> usize {
        self.ids.push(change.id.0);
        self.previous_seqs.push(to_bigint(change.previous_seq));
        self.seqs.push(0);
        self.states.push("");
        self.outcomes.push(None);
        self.snapshots.push(None);
        self.ats.push(0);
        self.nodes.push(change.node.map(|node| node.0));
        self.epochs.push(to_bigint(change.epoch));
        self.last_seqs.push(None);
        self.last_ats.push(None);
        self.ids.len() - 1
    }

    fn params(&self) -> [Param<'_>; 34] {
        let (new, events) = (&self.new, &self.events);
        [
            (&self.ids, Type::UUID_ARRAY),
            (&self.previous_seqs, Type::INT8_ARRAY),
            (&self.seqs, Type::INT8_ARRAY),
            (&self.states, Type::TEXT_ARRAY),
            (&self.outcomes, Type::TEXT_ARRAY),
            (&self.snapshots, Type::TEXT_ARRAY),
            (&self.ats, Type::INT8_ARRAY),
            (&new.ids, Type::UUID_ARRAY),
            (&new.games, Type::TEXT_ARRAY),
            (&new.game_versions, Type::TEXT_ARRAY),
            (&new.seeds, Type::INT8_ARRAY),
            (&new.options, Type::TEXT_ARRAY),
            (&new.seats, Type::INT2_ARRAY),
            (&new.visibilities, Type::TEXT_ARRAY),
            (&new.join_codes, Type::TEXT_ARRAY),
            (&new.created_ats, Type::INT8_ARRAY),
            (&events.match_ids, Type::UUID_ARRAY),
            (&events.seqs, Type::INT8_ARRAY),
            (&events.ats, Type::INT8_ARRAY),
            (&events.seats, Type::INT2_ARRAY),
            (&events.command_ids, Type::INT8_ARRAY),
            (&events.users, Type::UUID_ARRAY),
            (&events.structural, Type::BOOL_ARRAY),
            (&events.events, Type::TEXT_ARRAY),
            (&self.given_up.0, Type::UUID_ARRAY),
            (&self.given_up.1, Type::INT2_ARRAY),
            (&self.taken.0, Type::UUID_ARRAY),
            (&self.taken.1, Type::INT2_ARRAY),
            (&self.taken.2, Type::UUID_ARRAY),
            (&self.nodes, Type::UUID_ARRAY),
            (&self.epochs, Type::INT8_ARRAY),
            (&self.log_snapshots.0, Type::UUID_ARRAY),
            (&self.log_snapshots.1, Type::INT8_ARRAY),
            (&self.log_snapshots.2, Type::TEXT_ARRAY),
        ]
    }
}

impl<'a> NewColumns<'a> {
    fn push(&mut self, record: &'a MatchRecord) {
        self.ids.push(record.id.0);
        self.games.push(&record.game);
        self.game_versions.push(&record.game_version);
        self.seeds.push(record.seed.cast_signed());
        self.options.push(&record.options);
        self.seats.push(i16::from(record.seats));
        self.visibilities.push(record.visibility.as_str());
        self.join_codes.push(record.join_code.as_deref());
        self.created_ats.push(record.created_at.0);
    }
}

impl<'a> EventColumns<'a> {
    fn extend(&mut self, id: Uuid, events: &'a [EventRecord]) {
        for event in events {
            self.match_ids.push(id);
            self.seqs.push(to_bigint(event.seq));
            self.ats.push(event.at.0);
            self.seats.push(event.seat.map(|seat| i16::from(seat.0)));
            self.command_ids.push(event.command_id.map(to_bigint));
            self.users.push(event.user.map(|user| user.0));
            self.structural.push(event.structural);
            self.events.push(&event.event);
        }
    }
}

/// Numbers of events and commands stay below 2^53, JSON's bound for them.
pub(super) fn to_bigint(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn from_bigint(number: i64) -> Result<u64, StoreError> {
    u64::try_from(number).map_err(|_| StoreError::Corrupt(format!("{number} is no number")))
}

pub(super) fn seat(number: i16) -> Result<Seat, StoreError> {
    let seat = u8::try_from(number).map(Seat);
    seat.map_err(|_| StoreError::Corrupt(format!("{number} is no seat")))
}

pub(super) fn parsed<T: DeserializeOwned>(json: &str) -> Result<T, StoreError> {
    serde_json::from_str(json).map_err(|error| StoreError::Corrupt(error.to_string()))
}

pub(super) fn word<T: DeserializeOwned>(word: &str) -> Result<T, StoreError> {
    parsed(&format!("\"{word}\""))
}

/// A player as [`MATCH_COLUMNS`] gives it.
#[derive(Deserialize)]
struct Player {
    seat: i16,
    user: Option<UserId>,
    display_name: Option<String>,
}

fn read_match(row: &Row) -> Result<MatchRecord, StoreError> {
    let players: Vec<Player> = parsed(row.get(14))?;
    let player = |Player { seat: number, user, display_name }| {
        Ok(PlayerRecord { seat: seat(number)?, user, display_name })
    };
    Ok(MatchRecord {
        id: MatchId(row.get(0)),
        game: row.get(1),
        game_version: row.get(2),
        seed: row.get::<_, i64>(3).cast_unsigned(),
        options: row.get(4),
        seats: seat(row.get(5))?.0,
        state: word(row.get(6))?,
        visibility: word(row.get(7))?,
        join_code: row.get(8),
        created_at: Timestamp(row.get(9)),
        seq: from_bigint(row.get(10))?,
        outcome: row.get::<_, Option<&str>>(11).map(parsed).transpose()?,
        ratings: row.get::<_, Option<&str>>(12).map(parsed).transpose()?,
        snapshot: row.get(13),
        players: players.into_iter().map(player).collect::<Result<_, StoreError>>()?,
    })
}

fn read_event(row: &Row) -> Result<EventRecord, StoreError> {
    Ok(EventRecord {
        seq: from_bigint(row.get(0))?,
        at: Timestamp(row.get(1)),
        seat: row.get::<_, Option<i16>>(2).map(seat).transpose()?,
        command_id: row.get::<_, Option<i64>>(3).map(from_bigint).transpose()?,
        user: row.get::<_, Option<_>>(4).map(UserId),
        display_name: row.get(5),
        structural: row.get(6),
        event: row.get(7),
    })
}
