//! How often something was done in this minute, counted by all nodes together.

use tokio_postgres::types::Type;

use super::Postgres;
use crate::store::StoreError;

/// The number of this minute.
const MINUTE: &str = "floor(extract(epoch FROM now()) / 60)::bigint";

impl Postgres {
    /// Counts `key` once more; gives how often that was in this minute, and the seconds that the
    /// minute still has.
    pub async fn count(&self, key: [u8; 32]) -> Result<(u32, u32), StoreError> {
        let sql = format!(
            "INSERT INTO rates AS rate (key, minute, count) VALUES ($1, {MINUTE}, 1)
             ON CONFLICT (key) DO UPDATE SET minute = excluded.minute,
                 count = CASE WHEN rate.minute = excluded.minute THEN rate.count + 1 ELSE 1 END
             RETURNING count, ceil(60 - mod(extract(epoch FROM now()), 60))::bigint"
        );
        let rows = self.query(&sql, &[(&key.to_vec(), Type::BYTEA)]).await?;
        let number = |place| {
            let number = rows.first().map_or(0, |row| row.get::<_, i64>(place));
            u32::try_from(number).unwrap_or(u32::MAX)
        };
        Ok((number(0), number(1)))
    }

    /// Takes one of this minute's counts of `key` back.
    pub async fn uncount(&self, key: [u8; 32]) -> Result<(), StoreError> {
        let sql = format!(
            "UPDATE rates SET count = count - 1
             WHERE key = $1 AND minute = {MINUTE} AND count > 0"
        );
        self.query(&sql, &[(&key.to_vec(), Type::BYTEA)]).await.map(drop)
    }

    /// Forgets what was counted in minutes that are over.
    pub async fn prune_rates(&self) -> Result<(), StoreError> {
        self.query(&format!("DELETE FROM rates WHERE minute < {MINUTE}"), &[]).await.map(drop)
    }
}
