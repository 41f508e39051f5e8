//! Brings the schema up to date, before any runtime starts.
//!
//! One node at a time does it, under an advisory lock; whoever comes second finds it done. A
//! migration is never taken back, and each has to leave a schema that the version before it can work
//! with, so that nodes can be replaced one by one.

use postgres::{Client, Transaction};

use super::tls;
use super::url::PostgresUrl;
use crate::store::StoreError;

/// Schema changes in order; `schema_migrations` has a row for each that was applied.
const MIGRATIONS: &[&str] = &[
    include_str!("../migrations/postgres/0001_first.sql"),
    include_str!("../migrations/postgres/0002_nodes.sql"),
    include_str!("../migrations/postgres/0003_snapshots.sql"),
    include_str!("../migrations/postgres/0004_tickets.sql"),
    include_str!("../migrations/postgres/0005_notices.sql"),
    include_str!("../migrations/postgres/0006_certificates.sql"),
    include_str!("../migrations/postgres/0007_ratings.sql"),
    include_str!("../migrations/postgres/0008_parties.sql"),
    include_str!("../migrations/postgres/0009_modules.sql"),
];

/// The advisory lock's number, which nothing else in the database should use.
const LOCK: i64 = 0x6761_6d65_7372_7672;

/// What is to be done about a schema that is not the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Migrate {
    /// Bring it up to date.
    Apply,
    /// Refuse it.
    Check,
}

/// Applies what is missing and gives how many changes that were. Needs a thread without a runtime.
pub fn migrate(url: &PostgresUrl, migrate: Migrate) -> Result<usize, StoreError> {
    let mut client = connect(url)?;
    let mut applied = 0;
    // Each by itself: nodes that serve meanwhile wait for one change at most, and a transaction that
    // holds one table never waits for another that a node may hold.
    while step(&mut client, migrate)? {
        applied += 1;
    }
    Ok(applied)
}

/// Applies the next change; false if there is none.
fn step(client: &mut Client, migrate: Migrate) -> Result<bool, StoreError> {
    // The lock ends with the transaction, so a pooler does no harm.
    let mut transaction = client.transaction()?;
    if migrate == Migrate::Apply {
        transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK])?;
        transaction.batch_execute(
            "CREATE TABLE IF NOT EXISTS schema_migrations
             (version integer PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())",
        )?;
    }
    let (before, known) = (version(&mut transaction)?, MIGRATIONS.len());
    if before > known {
        return Err(StoreError::Corrupt(format!(
            "its schema has version {before}, this server knows versions up to {known}: it was \
             written by a newer server, start that one"
        )));
    }
    let Some(change) = MIGRATIONS.get(before) else {
        transaction.commit()?;
        return Ok(false);
    };
    if migrate == Migrate::Check {
        let missing = known - before;
        return Err(StoreError::Corrupt(format!(
            "its schema lacks {missing} of {known} changes: run `gameserver migrate`"
        )));
    }
    transaction.batch_execute(change)?;
    let number = i32::try_from(before + 1).unwrap_or(i32::MAX);
    transaction.execute("INSERT INTO schema_migrations (version) VALUES ($1)", &[&number])?;
    transaction.commit()?;
    Ok(true)
}

/// A connection of its own. Needs a thread without a runtime.
pub(in crate::store) fn connect(url: &PostgresUrl) -> Result<Client, StoreError> {
    let tls = tls::connector(url).map_err(|error| StoreError::Unavailable(error.to_string()))?;
    Ok(postgres::Config::from(url.config().clone()).connect(tls)?)
}

/// Changes that were applied so far.
fn version(transaction: &mut Transaction<'_>) -> Result<usize, StoreError> {
    let exists =
        transaction.query_one("SELECT to_regclass('schema_migrations') IS NOT NULL", &[])?;
    if !exists.get::<_, bool>(0) {
        return Ok(0);
    }
    let row =
        transaction.query_one("SELECT coalesce(max(version), 0) FROM schema_migrations", &[])?;
    Ok(usize::try_from(row.get::<_, i32>(0)).unwrap_or(0))
}
