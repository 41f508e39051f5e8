//! What is kept, and how to reach it: records, errors, and the store's one handle.
//!
//! Rooms above know this page alone. [`Store`] is an embedded SQLite file; its calls are `async`
//! and give back once the change is committed (WAL, `synchronous=FULL`): what a call has confirmed
//! survives a crash of the machine.

mod matches;
mod sqlite;
mod users;

pub use sqlite::Store;
pub use users::{NewSession, UserChange, UserUpdate};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::games::{Outcome, Seat};
use crate::ids::{MatchId, SessionId, Timestamp, UserId};

/// Why the store did not do as it was asked. Nothing was changed.
#[derive(Clone, Debug, Error)]
pub enum StoreError {
    /// It can't be reached or can't write; the text is for the log, not for users.
    #[error("the store is away: {0}")]
    Unavailable(String),
    /// More calls wait than [`sqlite::QUEUE_MAX`].
    #[error("the store is busy")]
    Busy,
    /// What was to be written contradicts what is there.
    #[error("conflict: {0}")]
    Conflict(String),
    /// What was read can't be: another program wrote it, or the file is damaged.
    #[error("the store holds what it should not: {0}")]
    Corrupt(String),
}

/// An account.
#[derive(Clone, Debug)]
pub struct UserRecord {
    /// Its id.
    pub id: UserId,
    /// As its owner writes it; `None` for a guest.
    pub username: Option<String>,
    /// What others see.
    pub display_name: String,
    /// Argon2id in PHC form; `None` for a guest.
    pub password_hash: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// What became of a refresh token that was handed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// It was good: a new one took its place.
    Rotated {
        /// Whose session.
        user: UserId,
        /// Which session.
        session: SessionId,
    },
    /// It had been used before: the session has been ended.
    Reused {
        /// Which session.
        session: SessionId,
    },
    /// Nobody's, or expired.
    Unknown,
}

/// Where a match is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MatchState {
    /// Seats are free.
    Open,
    /// It is played.
    Running,
    /// It is over.
    Ended,
}

impl MatchState {
    /// As the store and JSON write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Running => "running",
            Self::Ended => "ended",
        }
    }
}

/// Who may know of a match.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Visibility {
    /// Everybody: it is listed, and may be watched.
    #[default]
    Public,
    /// Its players, and those who have its join code.
    Private,
}

impl Visibility {
    /// As the store and JSON write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Private => "private",
        }
    }
}

/// A taken seat. Both are `None` where the account is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlayerRecord {
    /// Which seat.
    pub seat: Seat,
    /// Who has it.
    pub user: Option<UserId>,
    /// The user's display name of today.
    pub display_name: Option<String>,
}

/// A match without its log.
#[derive(Clone, Debug)]
pub struct MatchRecord {
    /// Its id.
    pub id: MatchId,
    /// The name of its game.
    pub game: String,
    /// The version of the rules it began with.
    pub game_version: String,
    /// Its game's only source of chance.
    pub seed: u64,
    /// What it was created with: a JSON object.
    pub options: String,
    /// How many seats it has.
    pub seats: u8,
    /// Where it is in its life.
    pub state: MatchState,
    /// Who may know of it.
    pub visibility: Visibility,
    /// What opens a private one.
    pub join_code: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// The last event's number. In a `relay` match, whose messages are not stored: a number that
    /// was not used yet when this was written, or the last one if it was put away in order.
    pub seq: u64,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// The shared state of a `relay` match: JSON.
    pub snapshot: Option<String>,
    /// Taken seats, in rising order.
    pub players: Vec<PlayerRecord>,
}

/// One event of a match's log.
#[derive(Clone, Debug)]
pub struct EventRecord {
    /// Its number in the match.
    pub seq: u64,
    /// When it was decided.
    pub at: Timestamp,
    /// Whose it is.
    pub seat: Option<Seat>,
    /// The id that the seat's client gave the command it follows from.
    pub command_id: Option<u64>,
    /// Who took the seat, where that is the event.
    pub user: Option<UserId>,
    /// That user's display name of today; only read, never written.
    pub display_name: Option<String>,
    /// Whether it is the engine's own (joined, left, started, ended) and not the game's.
    pub structural: bool,
    /// What happened: JSON.
    pub event: String,
}

/// A change of one match, written whole or not at all.
#[derive(Clone, Debug)]
pub struct MatchChange {
    /// Which match.
    pub id: MatchId,
    /// The match itself, if it is new.
    pub create: Option<Box<MatchRecord>>,
    /// What comes to its log.
    pub events: Vec<EventRecord>,
    /// Seats taken (`Some`) and given up (`None`).
    pub seats: Vec<(Seat, Option<UserId>)>,
    /// From now on.
    pub state: MatchState,
    /// From now on; see [`MatchRecord::seq`].
    pub seq: u64,
    /// What it has to be until now: a change that follows from another state is refused.
    pub previous_seq: u64,
    /// From now on.
    pub outcome: Option<Outcome>,
    /// From now on; `None` leaves it as it is.
    pub snapshot: Option<String>,
    /// When.
    pub at: Timestamp,
}

/// Which matches a list shows.
#[derive(Clone, Debug, Default)]
pub struct MatchFilter {
    /// Of this game.
    pub game: Option<String>,
    /// In this state.
    pub state: Option<MatchState>,
    /// In which the viewer has a seat.
    pub mine: bool,
    /// Below this id: the last of the page before.
    pub before: Option<MatchId>,
    /// At most so many, newest first.
    pub limit: u32,
}
