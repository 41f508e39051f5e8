//! Ratings and leaderboards, in SQL.
//!
//! Ratings are moved in the transaction that ends their matches. Several nodes do that at a time:
//! rows are made, and locked, in the order of their keys, so that of two who want the same ones the
//! second waits for the first and finds what that has made of them.

use std::collections::{BTreeMap, HashMap, HashSet};

use deadpool_postgres::ClientWrapper;
use tokio_postgres::Row;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::matches::{from_bigint, parsed, seat, to_bigint};
use super::{Param, Postgres};
use crate::games::Seat;
use crate::ids::{MatchId, Timestamp, UserId};
use crate::ratings::{Rating, RatingChange, Standing, settle};
use crate::store::{Leader, MatchChange, Place, StoreError, bucket};

/// Makes the rows of those who have none and have met somebody, as of somebody who has not played.
/// Who is about to do the same is waited for; what comes of it the next statement sees.
const MAKE: &str = "INSERT INTO ratings (game, user_id, rating, deviation, volatility, bucket, wins,
        losses, draws, rated_at)
    SELECT DISTINCT game, user_id, $2::float8, $3::float8, $4::float8, NULL::float8, 0, 0, 0, $5::bigint
    FROM match_players JOIN matches ON matches.id = match_id
    WHERE match_id = ANY($1::uuid[]) AND user_id IS NOT NULL
        AND (SELECT count(user_id) FROM match_players AS seat WHERE seat.match_id = matches.id) > 1
    ORDER BY game, user_id ON CONFLICT DO NOTHING";

/// The players of matches, and their standings, which are nobody else's until the commit.
const LOCK: &str = "SELECT ratings.user_id, rating, deviation, volatility, wins, losses, draws,
        rated_at, ratings.game, match_id, seat
    FROM match_players JOIN matches ON matches.id = match_id
    JOIN ratings ON ratings.game = matches.game AND ratings.user_id = match_players.user_id
    WHERE match_id = ANY($1::uuid[]) ORDER BY ratings.game, ratings.user_id FOR UPDATE OF ratings";

const WRITE: &str = "WITH ended AS (
        UPDATE matches SET ratings = t.ratings
        FROM unnest($1::uuid[], $2::text[]) AS t (id, ratings) WHERE matches.id = t.id
    )
    UPDATE ratings SET rating = t.rating, deviation = t.deviation, volatility = t.volatility,
        bucket = t.bucket, wins = t.wins, losses = t.losses, draws = t.draws, rated_at = t.rated_at
    FROM unnest($3::text[], $4::uuid[], $5::float8[], $6::float8[], $7::float8[], $8::float8[],
                $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[])
        AS t (game, user_id, rating, deviation, volatility, bucket, wins, losses, draws, rated_at)
    WHERE ratings.game = t.game AND ratings.user_id = t.user_id";

/// Leaders as [`read_leader`] takes them; what they are goes between this and [`DOWNWARDS`]. A join
/// for the names would tempt the planner to read all users.
const LEADERS: &str =
    "SELECT user_id, rating, deviation, volatility, wins, losses, draws, rated_at,
    (SELECT display_name FROM users WHERE id = user_id), better FROM";
/// The highest first.
const DOWNWARDS: &str = "ORDER BY bucket DESC, rating DESC, user_id DESC";

/// How many are better than somebody: those in better buckets, which are counted, and those in the
/// same one. Then those around, of one moment. Before [`DOWNWARDS`].
const AROUND: &str = "(WITH own AS MATERIALIZED (
            SELECT bucket, rating, user_id,
                (SELECT coalesce(sum(players), 0)::bigint FROM rating_counts
                 WHERE game = $1 AND bucket > own.bucket)
                + (SELECT count(*) FROM ratings WHERE game = $1 AND bucket = own.bucket
                       AND (rating, user_id) > (own.rating, own.user_id)) AS better
            FROM ratings AS own WHERE game = $1 AND user_id = $2
        )
        SELECT around.*, better FROM own, LATERAL (
            (SELECT * FROM ratings WHERE game = $1
                 AND (bucket, rating, user_id) > (own.bucket, own.rating, own.user_id)
             ORDER BY bucket, rating, user_id LIMIT $3)
            UNION ALL
            (SELECT * FROM ratings WHERE game = $1
                 AND (bucket, rating, user_id) <= (own.bucket, own.rating, own.user_id)
             ORDER BY bucket DESC, rating DESC, user_id DESC LIMIT $4)
        ) AS around
    ) AS ratings";

/// Standings column by column, as `unnest` takes them.
#[derive(Default)]
struct Columns<'a> {
    games: Vec<&'a str>,
    users: Vec<Uuid>,
    ratings: Vec<f64>,
    deviations: Vec<f64>,
    volatilities: Vec<f64>,
    buckets: Vec<f64>,
    wins: Vec<i64>,
    losses: Vec<i64>,
    draws: Vec<i64>,
    rated_ats: Vec<i64>,
}

impl<'a> Columns<'a> {
    fn push(&mut self, game: &'a str, user: UserId, standing: &Standing) {
        let Standing { rating, wins, losses, draws, rated_at } = standing;
        self.games.push(game);
        self.users.push(user.0);
        self.ratings.push(rating.points);
        self.deviations.push(rating.deviation);
        self.volatilities.push(rating.volatility);
        self.buckets.push(bucket(rating.points));
        self.wins.push(to_bigint(*wins));
        self.losses.push(to_bigint(*losses));
        self.draws.push(to_bigint(*draws));
        self.rated_ats.push(rated_at.0);
    }
}

impl Postgres {
    /// Moves the ratings of the players of those matches among the `written` whose end is among
    /// `changes`, in the transaction that is open on `connection`.
    pub(super) async fn rate(
        &self,
        connection: &ClientWrapper,
        changes: &[MatchChange],
        written: &[Uuid],
    ) -> Result<HashMap<MatchId, Vec<RatingChange>>, StoreError> {
        let written: HashSet<&Uuid> = written.iter().collect();
        let ended: Vec<&MatchChange> = changes
            .iter()
            .filter(|change| change.rated && written.contains(&change.id.0))
            .collect();
        let Some(at) = ended.iter().map(|change| change.at).max() else {
            return Ok(HashMap::new());
        };
        let ids: Vec<Uuid> = ended.iter().map(|change| change.id.0).collect();
        let Rating { points, deviation, volatility } = Rating::default();
        let params: [Param; 5] = [
            (&ids, Type::UUID_ARRAY),
            (&points, Type::FLOAT8),
            (&deviation, Type::FLOAT8),
            (&volatility, Type::FLOAT8),
            (&at.0, Type::INT8),
        ];
        self.run(connection, MAKE, &params).await?;
        let rows = self.run(connection, LOCK, &[(&ids, Type::UUID_ARRAY)]).await?;
        let mut table = Table::read(&rows)?;
        let changes = ended.iter().filter_map(|change| {
            Some((change.id, table.settle(change).filter(|changes| !changes.is_empty())?))
        });
        let changes: HashMap<_, _> = changes.collect();
        self.write_ratings(connection, &table, &changes).await?;
        Ok(changes)
    }

    async fn write_ratings(
        &self,
        connection: &ClientWrapper,
        table: &Table<'_>,
        changes: &HashMap<MatchId, Vec<RatingChange>>,
    ) -> Result<(), StoreError> {
        let (mut ids, mut json) = (Vec::new(), Vec::new());
        for (id, changes) in changes {
            ids.push(id.0);
            json.push(
                serde_json::to_string(changes)
                    .map_err(|error| StoreError::Corrupt(format!("ratings of {id}: {error}")))?,
            );
        }
        let mut columns = Columns::default();
        let rated = table.standings.iter().filter(|(_, standing)| standing.matches() > 0);
        for ((game, user), standing) in rated {
            columns.push(game, *user, standing);
        }
        let params: [Param; 12] = [
            (&ids, Type::UUID_ARRAY),
            (&json, Type::TEXT_ARRAY),
            (&columns.games, Type::TEXT_ARRAY),
            (&columns.users, Type::UUID_ARRAY),
            (&columns.ratings, Type::FLOAT8_ARRAY),
            (&columns.deviations, Type::FLOAT8_ARRAY),
            (&columns.volatilities, Type::FLOAT8_ARRAY),
            (&columns.buckets, Type::FLOAT8_ARRAY),
            (&columns.wins, Type::INT8_ARRAY),
            (&columns.losses, Type::INT8_ARRAY),
            (&columns.draws, Type::INT8_ARRAY),
            (&columns.rated_ats, Type::INT8_ARRAY),
        ];
        self.run(connection, WRITE, &params).await?;
        Ok(())
    }

    /// What the ends of matches have made of ratings.
    pub(super) async fn ratings_of(
        &self,
        ids: &[Uuid],
    ) -> Result<HashMap<MatchId, Vec<RatingChange>>, StoreError> {
        let sql = "SELECT id, ratings FROM matches WHERE id = ANY($1) AND ratings IS NOT NULL";
        let rows = self.query(sql, &[(&ids, Type::UUID_ARRAY)]).await?;
        rows.iter().map(|row| Ok((MatchId(row.get(0)), parsed(row.get(1))?))).collect()
    }

    pub(in crate::store) async fn leaders(
        &self,
        game: &str,
        below: Option<Place>,
        limit: u32,
    ) -> Result<Vec<Leader>, StoreError> {
        let limit = i64::from(limit);
        let place = below.map(|Place { points, user }| (bucket(points), points, user.0));
        let mut params: Vec<Param> = vec![(&game, Type::TEXT), (&limit, Type::INT8)];
        let mut condition = "AND bucket IS NOT NULL";
        if let Some((bucket, points, user)) = &place {
            params.push((bucket, Type::FLOAT8));
            params.push((points, Type::FLOAT8));
            params.push((user, Type::UUID));
            condition = "AND (bucket, rating, user_id) < ($3, $4, $5)";
        }
        let sql = format!(
            "{LEADERS} (SELECT *, 0::bigint AS better FROM ratings
             WHERE game = $1 {condition} {DOWNWARDS} LIMIT $2) AS ratings"
        );
        self.query(&sql, &params).await?.iter().map(read_leader).collect()
    }

    pub(in crate::store) async fn leaders_around(
        &self,
        game: &str,
        user: UserId,
        above: u32,
        limit: u32,
    ) -> Result<Option<(u64, Vec<Leader>)>, StoreError> {
        let params: [Param; 4] = [
            (&game, Type::TEXT),
            (&user.0, Type::UUID),
            (&i64::from(above), Type::INT8),
            (&i64::from(limit), Type::INT8),
        ];
        let rows = self.query(&format!("{LEADERS} {AROUND} {DOWNWARDS}"), &params).await?;
        let Some(first) = rows.first() else { return Ok(None) };
        let better = from_bigint(first.get(9))?;
        let mut leaders = rows.iter().map(read_leader).collect::<Result<Vec<_>, _>>()?;
        let ahead = leaders.iter().take_while(|leader| leader.user != user).count();
        leaders.truncate(limit as usize);
        Ok(Some((better + 1 - ahead as u64, leaders)))
    }
}

/// The players of matches that have ended, and their standings.
struct Table<'a> {
    players: HashMap<Uuid, BTreeMap<Seat, (&'a str, UserId)>>,
    standings: BTreeMap<(&'a str, UserId), Standing>,
}

impl<'a> Table<'a> {
    fn read(rows: &'a [Row]) -> Result<Self, StoreError> {
        let (mut players, mut standings) = (HashMap::<_, BTreeMap<_, _>>::new(), BTreeMap::new());
        for row in rows {
            let key = (row.get(8), UserId(row.get(0)));
            standings.insert(key, read_standing(row)?);
            players.entry(row.get(9)).or_default().insert(seat(row.get(10))?, key);
        }
        Ok(Self { players, standings })
    }

    /// Takes the end of a match into account.
    fn settle(&mut self, change: &MatchChange) -> Option<Vec<RatingChange>> {
        let (seated, outcome) = (self.players.get(&change.id.0)?, change.outcome.as_ref()?);
        let mut players: Vec<_> =
            seated.iter().map(|(seat, key)| (*seat, self.standings[key])).collect();
        let changes = settle(&mut players, outcome, change.at);
        for (key, (_, standing)) in seated.values().zip(players) {
            self.standings.insert(*key, standing);
        }
        Some(changes)
    }
}

fn read_standing(row: &Row) -> Result<Standing, StoreError> {
    Ok(Standing {
        rating: Rating { points: row.get(1), deviation: row.get(2), volatility: row.get(3) },
        wins: from_bigint(row.get(4))?,
        losses: from_bigint(row.get(5))?,
        draws: from_bigint(row.get(6))?,
        rated_at: Timestamp(row.get(7)),
    })
}

fn read_leader(row: &Row) -> Result<Leader, StoreError> {
    let (user, standing) = (UserId(row.get(0)), read_standing(row)?);
    Ok(Leader { user, display_name: row.get(8), standing })
}
