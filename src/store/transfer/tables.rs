//! What is carried: tables, columns, and values in a form that all stores share.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Uuid,
    Text,
    /// 64 bits.
    Integer,
    /// 16 bits in PostgreSQL.
    Small,
    Boolean,
    Bytes,
    /// 64 bits.
    Float,
}

/// A table, its key and its columns.
pub(super) struct Table {
    pub(super) name: &'static str,
    /// The primary key: rows are read in its order.
    key: &'static str,
    pub(super) columns: &'static [(&'static str, Kind)],
}

impl Table {
    /// The columns' names, with commas between them.
    pub(super) fn names(&self) -> String {
        let mut names = String::new();
        for (place, (name, _)) in self.columns.iter().enumerate() {
            let _ = write!(names, "{}{name}", if place == 0 { "" } else { ", " });
        }
        names
    }

    /// Reads all of it, or what `condition` lets through.
    pub(super) fn select(&self, condition: &str) -> String {
        format!("SELECT {} FROM {} {condition} ORDER BY {}", self.names(), self.name, self.key)
    }
}

/// The secrets of a store that nodes share; beside a SQLite file they are files.
pub(super) const SECRETS: Table =
    Table { name: "secrets", key: "name", columns: &[("name", Kind::Text), ("value", Kind::Text)] };

/// All tables, each after those that it refers to. Snapshots of logs are left behind: the logs have
/// all that is in them. How many players a bucket of ratings has each store counts itself.
pub(super) const TABLES: &[Table] = &[
    Table {
        name: "users",
        key: "id",
        columns: &[
            ("id", Kind::Uuid),
            ("username", Kind::Text),
            ("username_folded", Kind::Text),
            ("display_name", Kind::Text),
            ("password_hash", Kind::Text),
            ("created_at", Kind::Integer),
        ],
    },
    Table {
        name: "sessions",
        key: "id",
        columns: &[("id", Kind::Uuid), ("user_id", Kind::Uuid), ("expires_at", Kind::Integer)],
    },
    Table {
        name: "refresh_tokens",
        key: "digest",
        columns: &[("digest", Kind::Bytes), ("session_id", Kind::Uuid), ("spent", Kind::Boolean)],
    },
    Table {
        name: "revocations",
        key: "session_id",
        columns: &[("session_id", Kind::Uuid), ("until", Kind::Integer)],
    },
    Table {
        name: "modules",
        key: "version",
        columns: &[("version", Kind::Text), ("code", Kind::Bytes)],
    },
    Table {
        name: "matches",
        key: "id",
        columns: &[
            ("id", Kind::Uuid),
            ("game", Kind::Text),
            ("game_version", Kind::Text),
            ("seed", Kind::Integer),
            ("options", Kind::Text),
            ("seats", Kind::Small),
            ("state", Kind::Text),
            ("visibility", Kind::Text),
            ("join_code", Kind::Text),
            ("created_at", Kind::Integer),
            ("updated_at", Kind::Integer),
            ("seq", Kind::Integer),
            ("outcome", Kind::Text),
            ("ratings", Kind::Text),
            ("snapshot", Kind::Text),
        ],
    },
    Table {
        name: "match_players",
        key: "match_id, seat",
        columns: &[("match_id", Kind::Uuid), ("seat", Kind::Small), ("user_id", Kind::Uuid)],
    },
    Table {
        name: "match_events",
        key: "match_id, seq",
        columns: &[
            ("match_id", Kind::Uuid),
            ("seq", Kind::Integer),
            ("at", Kind::Integer),
            ("seat", Kind::Small),
            ("command_id", Kind::Integer),
            ("user_id", Kind::Uuid),
            ("structural", Kind::Boolean),
            ("event", Kind::Text),
        ],
    },
    Table {
        name: "ratings",
        key: "game, user_id",
        columns: &[
            ("game", Kind::Text),
            ("user_id", Kind::Uuid),
            ("rating", Kind::Float),
            ("deviation", Kind::Float),
            ("volatility", Kind::Float),
            ("bucket", Kind::Float),
            ("wins", Kind::Integer),
            ("losses", Kind::Integer),
            ("draws", Kind::Integer),
            ("rated_at", Kind::Integer),
        ],
    },
    SECRETS,
];

/// A column's value in a row.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Uuid([u8; 16]),
    Text(String),
    Integer(i64),
    Boolean(bool),
    Bytes(Vec<u8>),
    Float(f64),
}

impl Value {
    /// Appends the one form that it has in digests and backups.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Null => out.push(b'n'),
            Self::Uuid(bytes) => {
                out.push(b'u');
                out.extend_from_slice(bytes);
            }
            Self::Text(text) => prefixed(b't', text.as_bytes(), out),
            Self::Integer(number) => {
                out.push(b'i');
                out.extend_from_slice(&number.to_be_bytes());
            }
            Self::Boolean(truth) => out.extend_from_slice(&[b'b', u8::from(*truth)]),
            Self::Bytes(bytes) => prefixed(b'y', bytes, out),
            Self::Float(number) => {
                out.push(b'f');
                out.extend_from_slice(&number.to_be_bytes());
            }
        }
    }
}

fn prefixed(tag: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    out.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// Counts rows and digests them.
#[derive(Default)]
pub(super) struct Tally {
    rows: u64,
    digest: Sha256,
    buffer: Vec<u8>,
}

impl Tally {
    pub(super) fn add(&mut self, row: &[Value]) {
        self.rows += 1;
        self.buffer.clear();
        for value in row {
            value.encode(&mut self.buffer);
        }
        self.digest.update(&self.buffer);
    }

    pub(super) fn done(self) -> (u64, [u8; 32]) {
        (self.rows, self.digest.finalize().into())
    }
}
