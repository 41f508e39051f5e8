//! The embedded store: one SQLite file, one thread that writes, a few that read.
//!
//! All changes that wait at the same moment share one transaction, and so one `fsync` (group
//! commit); each runs in a savepoint of its own, so one that fails takes no other with it.

mod matches;
mod ratings;
mod tickets;
mod users;

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};
use tokio::sync::oneshot;

use super::StoreError;
use crate::telemetry::work;
use crate::vital::Vital;

/// Calls that may wait for the store; more are refused as [`StoreError::Busy`].
pub const QUEUE_MAX: usize = 4096;
/// Changes that share a transaction at most.
const TRANSACTION_JOBS_MAX: usize = 1024;
/// Threads that read.
const READERS: usize = 2;
/// How long a statement waits for another process's lock (a backup tool's, say).
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Prepared statements kept a connection: all that the store has.
const STATEMENTS_MAX: usize = 64;

/// Schema changes in order; the file's `user_version` counts those it has.
pub(super) const MIGRATIONS: &[&str] = &[
    include_str!("../migrations/sqlite/0001_first.sql"),
    include_str!("../migrations/sqlite/0002_snapshots.sql"),
    include_str!("../migrations/sqlite/0003_tickets.sql"),
    include_str!("../migrations/sqlite/0004_ratings.sql"),
    include_str!("../migrations/sqlite/0005_parties.sql"),
    include_str!("../migrations/sqlite/0006_modules.sql"),
];

/// Tells the caller of a change whether it was committed.
type Finish = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
type WriteJob = Box<dyn FnOnce(&Connection) -> Finish + Send>;
type ReadJob = Box<dyn FnOnce(&Connection) + Send>;

/// A handle to the store; see [`super`]. Committed means: in the WAL, and synced (`synchronous=FULL`).
pub struct Sqlite {
    /// `None` once it is closed.
    queues: Mutex<Option<Queues>>,
    /// The writer, then the readers.
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Clone)]
struct Queues {
    writes: SyncSender<WriteJob>,
    reads: SyncSender<ReadJob>,
}

impl Sqlite {
    /// Opens the file, creates it where there is none, and brings its schema up to date.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let mut connection = connect(path)?;
        migrate(&mut connection)?;
        Self::start(path, connection)
    }

    /// Opens a file that another program may work on: its schema has to be up to date.
    pub fn open_as_it_is(path: &Path) -> Result<Self, StoreError> {
        let connection = connect(path)?;
        let (done, wanted) = (schema_version(&connection)?, MIGRATIONS.len());
        if done != wanted {
            return Err(StoreError::Corrupt(format!(
                "its schema has version {done}, and here {wanted} is wanted: use the program that \
                 serves it, or let this version serve it once"
            )));
        }
        Self::start(path, connection)
    }

    fn start(path: &Path, connection: Connection) -> Result<Self, StoreError> {
        let (writes, write_queue) = sync_channel(QUEUE_MAX);
        let (reads, read_queue) = sync_channel(QUEUE_MAX);
        let read_queue = Arc::new(Mutex::new(read_queue));
        let mut threads =
            vec![spawn("store-write", move || write_loop(&connection, &write_queue))?];
        for _ in 0..READERS {
            let (connection, queue) = (connect(path)?, Arc::clone(&read_queue));
            threads.push(spawn("store-read", move || read_loop(&connection, &queue))?);
        }
        let queues = Mutex::new(Some(Queues { writes, reads }));
        Ok(Self { queues, threads: Mutex::new(threads) })
    }

    /// Finishes what waits and closes the file, which is then all there is: SQLite puts the log
    /// beside it back into it. Calls that come later fail. Blocks.
    pub fn close(&self) {
        let queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Queues { writes, reads }) = queues else { return };
        // The writer last and alone: of two that close at the same moment each takes the other for
        // open, and neither puts the log back.
        drop(reads);
        for reader in threads.drain(1..) {
            let _ = reader.join();
        }
        drop(writes);
        for writer in threads.drain(..) {
            let _ = writer.join();
        }
    }

    fn queues(&self) -> Result<Queues, StoreError> {
        let queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner).clone();
        queues.ok_or_else(|| StoreError::Unavailable("it was closed".into()))
    }

    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        self.write(|_| Ok(())).await
    }

    /// Runs a change; gives back once it is committed.
    async fn write<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        enqueue(
            &self.queues()?.writes,
            Box::new(move |db| {
                let result = in_savepoint(db, change);
                Box::new(move |committed| drop(answer.send(committed.and(result))))
            }),
        )?;
        answered.await.unwrap_or_else(|_| Err(StoreError::Unavailable("it was closed".into())))
    }

    /// Runs a query.
    async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        enqueue(&self.queues()?.reads, Box::new(move |db| drop(answer.send(query(db)))))?;
        answered.await.unwrap_or_else(|_| Err(StoreError::Unavailable("it was closed".into())))
    }
}

fn enqueue<J>(queue: &SyncSender<J>, job: J) -> Result<(), StoreError> {
    queue.try_send(job).map_err(|error| match error {
        TrySendError::Full(_) => StoreError::Busy,
        TrySendError::Disconnected(_) => StoreError::Unavailable("it was closed".into()),
    })
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StoreError> {
    std::thread::Builder::new()
        .name(name.into())
        .spawn(run)
        .map_err(|error| StoreError::Unavailable(error.to_string()))
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(BUSY_TIMEOUT)?;
    db.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    db.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;",
    )?;
    Ok(db)
}

/// How many of [`MIGRATIONS`] it has had.
fn schema_version(db: &Connection) -> Result<usize, StoreError> {
    Ok(db.query_row("PRAGMA user_version", [], |row| row.get(0))?)
}

fn migrate(db: &mut Connection) -> Result<(), StoreError> {
    let transaction = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let done = schema_version(&transaction)?;
    if done > MIGRATIONS.len() {
        return Err(StoreError::Corrupt(format!(
            "its schema has version {done}, this server knows versions up to {}: it was written \
             by a newer server, start that one",
            MIGRATIONS.len()
        )));
    }
    for migration in &MIGRATIONS[done..] {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "user_version", MIGRATIONS.len())?;
    transaction.commit()?;
    Ok(())
}

fn write_loop(db: &Connection, queue: &Receiver<WriteJob>) {
    let _vital = Vital("the store's writer");
    while let Ok(first) = queue.recv() {
        let mut working = work::SQLITE.works();
        let jobs = std::iter::once(first).chain(queue.try_iter()).take(TRANSACTION_JOBS_MAX);
        let begun = db.execute_batch("BEGIN IMMEDIATE");
        let finishes: Vec<Finish> = jobs.map(|job| job(db)).collect();
        working.span.amount(finishes.len());
        let committed = begun.and_then(|()| db.execute_batch("COMMIT")).map_err(StoreError::from);
        if committed.is_err() && !db.is_autocommit() {
            let _ = db.execute_batch("ROLLBACK");
        }
        for finish in finishes {
            finish(committed.clone());
        }
    }
}

fn read_loop(db: &Connection, queue: &Mutex<Receiver<ReadJob>>) {
    let _vital = Vital("a reader of the store");
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match job {
            Ok(job) => job(db),
            Err(_) => return,
        }
    }
}

fn in_savepoint<T>(
    db: &Connection,
    change: impl FnOnce(&Connection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    if db.is_autocommit() {
        return Err(StoreError::Unavailable("no transaction could be begun".into()));
    }
    db.prepare_cached("SAVEPOINT job")?.execute([])?;
    let result = change(db);
    if result.is_err() {
        db.prepare_cached("ROLLBACK TO job")?.execute([])?;
    }
    db.prepare_cached("RELEASE job")?.execute([])?;
    result
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::Error as E;
        match error.sqlite_error_code() {
            Some(ErrorCode::ConstraintViolation) => Self::Conflict(error.to_string()),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Corrupt(error.to_string())
            }
            Some(_) => Self::Unavailable(error.to_string()),
            None => match error {
                E::FromSqlConversionFailure(..)
                | E::IntegralValueOutOfRange(..)
                | E::InvalidColumnType(..)
                | E::Utf8Error(..) => Self::Corrupt(error.to_string()),
                _ => Self::Unavailable(error.to_string()),
            },
        }
    }
}
