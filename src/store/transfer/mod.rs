//! Carries all that is kept from one store to another, or to a file and back: the way to grow, and
//! the way to have a copy elsewhere.
//!
//! What is read is one moment of the source; what is written is one transaction. Rows go through
//! one at a time, counted and digested in a form that both kinds of store share, and before its
//! commit the target is read again: a difference is an error, and nothing was changed. What belongs
//! to nodes (leases, owners of matches, socket tickets) stays behind, and so does what is over in a few
//! minutes anyway: matchmaking tickets and the counts of rate limits.

mod archive;
mod postgres;
mod progress;
mod series;
mod sqlite;
mod tables;

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use thiserror::Error;

pub use self::series::backup_in_series;

use self::archive::{Reader, Writer};
use self::postgres::Server;
use self::progress::Progress;
use self::sqlite::Embedded;
use self::tables::{SECRETS, TABLES, Table, Tally, Value};
use super::StoreError;
use super::postgres::PostgresUrl;

/// The key of access tokens in the data directory.
pub const KEY_FILE: &str = "jwt-private-key.pem";
/// The same in a store that nodes share.
pub const KEY_SECRET: &str = "jwt-private-key";

/// A store that can be read or filled.
#[derive(Clone, Debug)]
pub enum Place {
    /// A SQLite file.
    Sqlite {
        /// The file.
        file: PathBuf,
        /// The data directory that goes with it, if it is known: there is the key.
        data_dir: Option<PathBuf>,
    },
    /// A PostgreSQL server.
    Postgres(PostgresUrl),
}

/// Why nothing was carried; one line each, without secrets.
#[derive(Debug, Error)]
pub enum TransferError {
    /// A store did not do as it was asked.
    #[error("the store: {0}")]
    Store(#[from] StoreError),
    /// A file could not be read or written.
    #[error("{}: {error}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A server works in the target.
    #[error("{}: a server works there (it is locked); stop it first", .0.display())]
    Locked(PathBuf),
    /// What is there already would be mixed with what comes.
    #[error("the target is not empty: it has rows in {0}")]
    NotEmpty(&'static str),
    /// The data directory of the target has another key.
    #[error("{}: there is another key already; move it away", .0.display())]
    OtherKey(PathBuf),
    /// No whole backup.
    #[error("it is no whole backup: {0}")]
    Backup(String),
    /// What was written is not what was read.
    #[error("{0} differs in the target from what was read; nothing was changed")]
    Differs(&'static str),
}

/// What was carried.
#[derive(Clone, Debug)]
pub struct Report {
    /// Each table's name, rows and SHA-256.
    pub tables: Vec<(&'static str, u64, [u8; 32])>,
    /// What was done with the key of access tokens.
    pub key: &'static str,
    /// How long it took.
    pub took: Duration,
}

/// Takes a row, or says why not.
type Put<'a> = &'a mut dyn FnMut(&[Value]) -> Result<(), TransferError>;
/// Hands all rows of a table to whom it is given.
type Feed<'a> = &'a mut dyn FnMut(Put<'_>) -> Result<(), TransferError>;

/// What can be read, table after table, each in the order of its primary key.
trait Source {
    fn rows(&mut self, table: &Table, put: Put<'_>) -> Result<(), TransferError>;
    /// After the last table: whether that was all.
    fn end(&mut self) -> Result<(), TransferError> {
        Ok(())
    }
}

/// What can be filled, and read again before it is committed.
trait Target: Source {
    /// Whether it has a place for this table.
    fn takes(&self, table: &Table) -> bool;
    fn load(&mut self, table: &Table, feed: Feed<'_>) -> Result<(), TransferError>;
    fn commit(self: Box<Self>) -> Result<(), TransferError>;
}

/// Copies everything, bringing the schema of `to` up to date first.
pub fn copy(from: &Place, to: &Place) -> Result<Report, TransferError> {
    carry(&mut *source(from)?, target(to)?)
}

/// Writes everything to a new file.
pub fn backup(from: &Place, file: &Path) -> Result<Report, TransferError> {
    let began = Instant::now();
    let mut source = source(from)?;
    let mut writer = Writer::create(file)?;
    let (mut progress, mut tables) = (Progress::start(), Vec::new());
    for table in TABLES {
        writer.begin(table)?;
        let mut tally = Tally::default();
        source.rows(table, &mut |row| {
            tally.add(row);
            progress.row("writing", table.name);
            writer.row(row)
        })?;
        let (rows, digest) = tally.done();
        writer.end(rows, &digest)?;
        tables.push((table.name, rows, digest));
    }
    source.end()?;
    writer.finish()?;
    let key = fate_of_key(&tables, true);
    Ok(Report { tables, key, took: began.elapsed() })
}

/// Fills an empty store from a file that [`backup`] wrote. The file is read through first: what is
/// wrong with it is better said of it than of the store that would not take a changed row.
pub fn restore(file: &Path, to: &Place) -> Result<Report, TransferError> {
    let mut whole = Reader::open(file)?;
    for table in TABLES {
        whole.rows(table, &mut |_| Ok(()))?;
    }
    whole.end()?;
    let mut source = Reader::open(file)?;
    carry(&mut source, target(to)?)
}

fn carry(source: &mut dyn Source, mut target: Box<dyn Target>) -> Result<Report, TransferError> {
    let began = Instant::now();
    let (mut progress, mut tables) = (Progress::start(), Vec::new());
    for table in TABLES {
        refuse_rows(&mut *target, table)?;
    }
    for table in TABLES {
        let mut tally = Tally::default();
        let mut count = |row: &[Value]| {
            tally.add(row);
            progress.row("copying", table.name);
        };
        if target.takes(table) {
            target.load(table, &mut |put| {
                source.rows(table, &mut |row| {
                    count(row);
                    put(row)
                })
            })?;
        } else {
            source.rows(table, &mut |row| {
                count(row);
                Ok(())
            })?;
        }
        let (rows, digest) = tally.done();
        tables.push((table.name, rows, digest));
    }
    source.end()?;
    for (table, (_, rows, digest)) in TABLES.iter().zip(&tables) {
        if target.takes(table) {
            check(&mut *target, table, (*rows, *digest), &mut progress)?;
        }
    }
    let key = fate_of_key(&tables, target.takes(&SECRETS));
    target.commit()?;
    Ok(Report { tables, key, took: began.elapsed() })
}

fn refuse_rows(target: &mut dyn Target, table: &Table) -> Result<(), TransferError> {
    target.rows(table, &mut |_| Err(TransferError::NotEmpty(table.name)))
}

/// Reads a table again.
fn check(
    target: &mut dyn Target,
    table: &Table,
    read: (u64, [u8; 32]),
    progress: &mut Progress,
) -> Result<(), TransferError> {
    let mut tally = Tally::default();
    target.rows(table, &mut |row| {
        tally.add(row);
        progress.row("checking", table.name);
        Ok(())
    })?;
    if tally.done() == read { Ok(()) } else { Err(TransferError::Differs(table.name)) }
}

fn fate_of_key(tables: &[(&'static str, u64, [u8; 32])], taken: bool) -> &'static str {
    let there = tables.iter().any(|(name, rows, _)| *name == SECRETS.name && *rows > 0);
    match (there, taken) {
        (true, true) => "The key of access tokens was carried along: they stay good.",
        (true, false) => {
            "The key of access tokens was left behind: the file is not in GAMESERVER_DATA_DIR."
        }
        (false, _) => {
            "No key of access tokens was found: if it is in GAMESERVER_JWT_PRIVATE_KEY, set that \
             there too."
        }
    }
}

fn source(place: &Place) -> Result<Box<dyn Source>, TransferError> {
    Ok(match place {
        Place::Sqlite { file, data_dir } => Box::new(Embedded::read(file, data_dir.as_deref())?),
        Place::Postgres(url) => Box::new(Server::read(url)?),
    })
}

fn target(place: &Place) -> Result<Box<dyn Target>, TransferError> {
    Ok(match place {
        Place::Sqlite { file, data_dir } => Box::new(Embedded::fill(file, data_dir.as_deref())?),
        Place::Postgres(url) => Box::new(Server::fill(url)?),
    })
}
