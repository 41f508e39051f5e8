//! A SQLite file as source and target, with the key in the data directory beside it.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, OpenFlags, ToSql, params_from_iter};

use super::tables::{Kind, SECRETS, Table, Value};
use super::{Feed, KEY_FILE, KEY_SECRET, Put, Source, Target, TransferError};
use crate::platform;
use crate::store::StoreError;
use crate::store::sqlite::{MIGRATIONS, Sqlite};

/// Locked by the server that works in the data directory.
const LOCK_FILE: &str = "gameserver.lock";

/// An open file in a transaction, which ends undone unless it is committed.
pub(super) struct Embedded {
    db: Connection,
    /// Where the key is, if that is known.
    key_file: Option<PathBuf>,
    /// The key that a target is given: it is written last.
    key: Option<String>,
    filling: bool,
    _locks: Vec<File>,
}

impl Embedded {
    /// One moment of a file; a server may go on working on it.
    pub(super) fn read(file: &Path, data_dir: Option<&Path>) -> Result<Self, TransferError> {
        let db = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)
            .map_err(StoreError::from)?;
        db.execute_batch("BEGIN").map_err(StoreError::from)?;
        let version: usize =
            db.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(StoreError::from)?;
        if version != MIGRATIONS.len() {
            return Err(TransferError::Store(StoreError::Corrupt(format!(
                "its schema has version {version} and not {}: start the server on it once",
                MIGRATIONS.len()
            ))));
        }
        let key_file = data_dir.map(|dir| dir.join(KEY_FILE));
        Ok(Self { db, key_file, key: None, filling: false, _locks: Vec::new() })
    }

    /// A file to be filled, made if there is none, and taken for this process.
    pub(super) fn fill(file: &Path, data_dir: Option<&Path>) -> Result<Self, TransferError> {
        let mut locks = Vec::new();
        if let Some(dir) = data_dir {
            let failed = |error| TransferError::File { path: dir.to_owned(), error };
            platform::private_dir(dir).map_err(failed)?;
            locks.push(lock(&dir.join(LOCK_FILE), dir)?);
        }
        let mut name = file.as_os_str().to_owned();
        name.push(".lock");
        locks.push(lock(Path::new(&name), file)?);
        Sqlite::open(file)?.close();
        let db = Connection::open(file).map_err(StoreError::from)?;
        db.execute_batch("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; BEGIN IMMEDIATE")
            .map_err(StoreError::from)?;
        let key_file = data_dir.map(|dir| dir.join(KEY_FILE));
        Ok(Self { db, key_file, key: None, filling: true, _locks: locks })
    }

    /// The key as a row; a target has none but the one that it was given.
    fn key(&self) -> Result<Option<String>, TransferError> {
        match &self.key_file {
            Some(path) if !self.filling => stored_key(path),
            _ => Ok(self.key.clone()),
        }
    }
}

impl Source for Embedded {
    fn rows(&mut self, table: &Table, put: Put<'_>) -> Result<(), TransferError> {
        if table.name == SECRETS.name {
            let Some(key) = self.key()? else { return Ok(()) };
            return put(&[Value::Text(KEY_SECRET.into()), Value::Text(key)]);
        }
        let mut statement = self.db.prepare(&table.select("")).map_err(StoreError::from)?;
        let mut rows = statement.query([]).map_err(StoreError::from)?;
        let mut values = Vec::with_capacity(table.columns.len());
        while let Some(row) = rows.next().map_err(StoreError::from)? {
            values.clear();
            for (place, (name, kind)) in table.columns.iter().enumerate() {
                let value = value(row.get_ref(place).map_err(StoreError::from)?, *kind);
                let bad = || StoreError::Corrupt(format!("{}.{name}", table.name));
                values.push(value.ok_or_else(bad)?);
            }
            put(&values)?;
        }
        Ok(())
    }
}

impl Target for Embedded {
    fn takes(&self, table: &Table) -> bool {
        table.name != SECRETS.name || self.key_file.is_some()
    }

    fn load(&mut self, table: &Table, feed: Feed<'_>) -> Result<(), TransferError> {
        if table.name == SECRETS.name {
            return feed(&mut |row| {
                if let [_, Value::Text(key)] = row {
                    self.key = Some(key.clone());
                }
                Ok(())
            });
        }
        let marks = vec!["?"; table.columns.len()].join(", ");
        let sql = format!("INSERT INTO {} ({}) VALUES ({marks})", table.name, table.names());
        let mut statement = self.db.prepare(&sql).map_err(StoreError::from)?;
        feed(&mut |row| {
            statement.execute(params_from_iter(row)).map_err(StoreError::from)?;
            Ok(())
        })
    }

    /// The key first: a store without its key would make another, and refuse all tokens.
    fn commit(self: Box<Self>) -> Result<(), TransferError> {
        let mut written = None;
        if let (Some(path), Some(key)) = (&self.key_file, &self.key) {
            match stored_key(path)? {
                Some(other) if other == *key => {}
                Some(_) => return Err(TransferError::OtherKey(path.clone())),
                None => {
                    let failed = |error| TransferError::File { path: path.clone(), error };
                    platform::write_private_file(path, key.as_bytes()).map_err(failed)?;
                    written = Some(path);
                }
            }
        }
        self.db.execute_batch("COMMIT").map_err(|error| {
            written.map(fs::remove_file);
            TransferError::Store(error.into())
        })
    }
}

fn stored_key(path: &Path) -> Result<Option<String>, TransferError> {
    match fs::read_to_string(path) {
        Ok(key) => Ok(Some(key)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(TransferError::File { path: path.to_owned(), error }),
    }
}

/// As the server does it, so that neither works where the other does.
fn lock(path: &Path, what: &Path) -> Result<File, TransferError> {
    let failed = |error| TransferError::File { path: path.to_owned(), error };
    let file =
        File::options().create(true).truncate(false).write(true).open(path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(TransferError::Locked(what.to_owned())),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// A value of a column of this kind; `None` if it is another's.
fn value(read: ValueRef<'_>, kind: Kind) -> Option<Value> {
    Some(match (read, kind) {
        (ValueRef::Null, _) => Value::Null,
        (ValueRef::Blob(bytes), Kind::Uuid) => Value::Uuid(bytes.try_into().ok()?),
        (ValueRef::Blob(bytes), Kind::Bytes) => Value::Bytes(bytes.to_vec()),
        (ValueRef::Text(text), Kind::Text) => Value::Text(String::from_utf8(text.to_vec()).ok()?),
        (ValueRef::Integer(number), Kind::Integer | Kind::Small) => Value::Integer(number),
        (ValueRef::Integer(number @ (0 | 1)), Kind::Boolean) => Value::Boolean(number == 1),
        (ValueRef::Real(number), Kind::Float) => Value::Float(number),
        _ => return None,
    })
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Uuid(bytes) => ValueRef::Blob(bytes),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Integer(number) => ValueRef::Integer(*number),
            Self::Boolean(truth) => ValueRef::Integer(i64::from(*truth)),
            Self::Bytes(bytes) => ValueRef::Blob(bytes),
            Self::Float(number) => ValueRef::Real(*number),
        }))
    }
}
