//! The store of many nodes: PostgreSQL.
//!
//! Each call is one statement where that can be, so that it is whole without a transaction's round
//! trips. Statements are prepared once for each connection; through a pooler that hands connections
//! out by transaction and can't keep statements (PgBouncer before 1.21) nothing is prepared. Nothing
//! is kept in a session but what [`dedicated`] listens to, and that is not done through a pooler.

mod dedicated;
mod matches;
mod migrate;
mod nodes;
mod notices;
mod rates;
mod ratings;
mod tickets;
mod tls;
mod url;
mod users;

pub(super) use migrate::connect;
pub use migrate::{Migrate, migrate};
pub use notices::{CHANNEL, Notice, Notices, Subscription, UnknownNotice};
pub use url::{PostgresUrl, Trust, UrlError};

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{
    ClientWrapper, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime,
};
use tokio::time::timeout;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use self::dedicated::Dedicated;
use super::{Connections, StoreError};

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// What an answer may take beyond the server's own limit for a statement.
const ANSWER_MARGIN: Duration = Duration::from_secs(2);

/// How to use a PostgreSQL server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresSettings {
    /// Where it is, and how it is trusted.
    pub url: PostgresUrl,
    /// Connections at most, beside the one of the lease.
    pub connections_max: usize,
    /// How long a call waits for a connection before it is refused as [`StoreError::Busy`].
    pub connection_wait: Duration,
    /// How long a statement may run.
    pub statement_timeout: Duration,
    /// How long a statement may wait for another's lock.
    pub lock_timeout: Duration,
    /// Whether statements are prepared; false through a pooler that can't keep them.
    pub prepare: bool,
}

/// A handle to the store; see [`super`].
pub struct Postgres {
    pool: Pool,
    dedicated: Dedicated,
    answer_timeout: Duration,
    prepare: bool,
}

/// A parameter of a statement and its type, which the server then need not be asked for.
type Param<'a> = (&'a (dyn ToSql + Sync), Type);

impl Postgres {
    /// A handle; connections are made as they are needed. An error is the configuration's.
    pub fn new(settings: &PostgresSettings) -> Result<Self, StoreError> {
        let mut config = settings.url.config().clone();
        config.connect_timeout(CONNECT_TIMEOUT).tcp_user_timeout(settings.statement_timeout);
        if settings.prepare {
            // A pooler that can't keep statements does not pass options on either.
            let limits = format!(
                "{} -c statement_timeout={} -c lock_timeout={} \
                 -c idle_in_transaction_session_timeout={}",
                config.get_options().unwrap_or_default(),
                settings.statement_timeout.as_millis(),
                settings.lock_timeout.as_millis(),
                // Nobody waits for longer for a lock that a process holds which stands still.
                settings.lock_timeout.as_millis()
            );
            config.options(limits.trim());
        }
        let unusable = |error: String| StoreError::Unavailable(error);
        let tls = tls::connector(&settings.url).map_err(|error| unusable(error.to_string()))?;
        let dedicated = Dedicated::new(config.clone(), tls.clone(), settings.prepare);
        let recycling_method = RecyclingMethod::Fast;
        let manager = Manager::from_config(config, tls, ManagerConfig { recycling_method });
        let pool = Pool::builder(manager)
            .max_size(settings.connections_max)
            .wait_timeout(Some(settings.connection_wait))
            .create_timeout(Some(CONNECT_TIMEOUT))
            .recycle_timeout(Some(CONNECT_TIMEOUT))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| unusable(error.to_string()))?;
        let answer_timeout = settings.statement_timeout + ANSWER_MARGIN;
        Ok(Self { pool, dedicated, answer_timeout, prepare: settings.prepare })
    }

    /// Those who wait for what nodes tell each other.
    pub fn notices(&self) -> &Arc<Notices> {
        &self.dedicated.notices
    }

    /// Connections, and who waits for one.
    pub(super) fn connections(&self) -> Connections {
        let status = self.pool.status();
        let (idle, waiting) = (status.available, status.waiting);
        Connections { idle, used: status.size.saturating_sub(idle), waiting }
    }

    /// Whether it takes changes, for readiness.
    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        let rows = self.query("SELECT pg_is_in_recovery()", &[]).await?;
        match rows.first().map(|row| row.get(0)) {
            Some(false) => Ok(()),
            _ => Err(StoreError::Unavailable("it is a replica that can't write".into())),
        }
    }

    /// The secret under `name` that all nodes share.
    pub async fn secret(&self, name: &str) -> Result<Option<String>, StoreError> {
        let params: [Param; 1] = [(&name, Type::TEXT)];
        let rows = self.query("SELECT value FROM secrets WHERE name = $1", &params).await?;
        Ok(rows.first().map(|row| row.get(0)))
    }

    /// Puts a secret under `name`, unless another node was quicker.
    pub async fn offer_secret(&self, name: &str, value: &str) -> Result<(), StoreError> {
        let params: [Param; 2] = [(&name, Type::TEXT), (&value, Type::TEXT)];
        let sql = "INSERT INTO secrets VALUES ($1, $2) ON CONFLICT DO NOTHING";
        self.query(sql, &params).await.map(drop)
    }

    /// Runs one statement, whole or not at all.
    async fn query(&self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, StoreError> {
        let mut busy = Busy(Some(self.pool.get().await?));
        let Some(client) = &busy.0 else { return Ok(Vec::new()) };
        let answer = in_time(self.answer_timeout, self.run(client, sql, params)).await?;
        drop(busy.0.take());
        Ok(answer?)
    }

    async fn run(
        &self,
        client: &ClientWrapper,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        if !self.prepare {
            return client.query_typed(sql, params).await;
        }
        let types: Vec<Type> = params.iter().map(|(_, of)| of.clone()).collect();
        let statement = client.prepare_typed_cached(sql, &types).await?;
        let values: Vec<&(dyn ToSql + Sync)> = params.iter().map(|(value, _)| *value).collect();
        client.query(&statement, &values).await
    }
}

async fn in_time<T>(limit: Duration, answer: impl Future<Output = T>) -> Result<T, StoreError> {
    let late = |_| StoreError::Unavailable("it does not answer".into());
    timeout(limit, answer).await.map_err(late)
}

/// A connection with a statement under way. If nobody waits for the answer any more it is closed:
/// whoever got it next would wait for that first.
struct Busy(Option<Object>);

impl Drop for Busy {
    fn drop(&mut self) {
        if let Some(client) = self.0.take() {
            drop(Object::take(client));
        }
    }
}

impl From<PoolError> for StoreError {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Timeout(deadpool_postgres::TimeoutType::Wait) => Self::Busy,
            PoolError::Backend(error) => error.into(),
            other => Self::Unavailable(other.to_string()),
        }
    }
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(db) = error.as_db_error() else {
            // The connection broke, or never was; the source says why.
            let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
            return Self::Unavailable(format!("{error}{}", source.unwrap_or_default()));
        };
        let text = format!("{}: {}", db.code().code(), db.message());
        // By class (PostgreSQL's manual, appendix A).
        match &db.code().code()[..2] {
            "23" => Self::Conflict(text),
            "08" | "25" | "28" | "3D" | "40" | "53" | "55" | "57" | "58" => Self::Unavailable(text),
            _ => Self::Corrupt(text),
        }
    }
}
