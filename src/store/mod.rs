//! What is kept, and how to reach it: records, errors, and the store's one handle.
//!
//! Rooms above know this page alone. A [`Store`] is an embedded SQLite file ([`sqlite`]) or a
//! PostgreSQL server ([`postgres`]); both do the same, and one suite of tests holds them to it. Calls
//! are `async` and give back once the change is committed: what a call has confirmed survives a
//! crash of the machine.

mod pipeline;
pub mod postgres;
pub mod sqlite;
pub mod transfer;

pub use pipeline::Pipeline;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::games::{Outcome, Seat};
use crate::ids::{MatchId, NodeId, SessionId, TicketId, Timestamp, UserId};
use crate::ratings::{Rating, RatingChange, Standing};
use crate::telemetry::figures::{STORE_CALLS, STORE_ERRORS, STORE_TIME, StoreFailure};

/// Why the store did not do as it was asked. Nothing was changed.
#[derive(Clone, Debug, Error)]
pub enum StoreError {
    /// It can't be reached or can't write; the text is for the log, not for users.
    #[error("it is away: {0}")]
    Unavailable(String),
    /// More calls wait than there is room for.
    #[error("it is busy")]
    Busy,
    /// What was to be written contradicts what is there.
    #[error("conflict: {0}")]
    Conflict(String),
    /// What was read can't be: another program wrote it, or the file is damaged.
    #[error("it holds what it should not: {0}")]
    Corrupt(String),
}

impl StoreError {
    fn kind(&self) -> StoreFailure {
        match self {
            Self::Unavailable(_) => StoreFailure::Unavailable,
            Self::Busy => StoreFailure::Busy,
            Self::Conflict(_) => StoreFailure::Conflict,
            Self::Corrupt(_) => StoreFailure::Corrupt,
        }
    }
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
    /// What the end has made of its players' ratings, if it is rated.
    pub ratings: Option<Vec<RatingChange>>,
    /// The shared state of a `relay` match: JSON.
    pub snapshot: Option<String>,
    /// Taken seats, in rising order.
    pub players: Vec<PlayerRecord>,
}

/// What a match's log up to an event comes to: the match is rebuilt from it and what follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The last event that is in it.
    pub seq: u64,
    /// All that follows from the events, as whoever rebuilds matches writes it: JSON.
    pub state: String,
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
    /// Who writes; `None` where nodes share nothing.
    pub node: Option<NodeId>,
    /// The writer's epoch: a change of another node or epoch than the match's own is refused.
    pub epoch: u64,
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
    /// Whether it is the end of a match that moves ratings: both are written together.
    pub rated: bool,
    /// The shared state from now on; `None` leaves it as it is.
    pub snapshot: Option<String>,
    /// What the log comes to with this change; `None` leaves the one that is there, which is older.
    pub log_snapshot: Option<Snapshot>,
    /// When.
    pub at: Timestamp,
}

/// What came of changes.
#[derive(Clone, Debug, Default)]
pub struct Appended {
    /// Matches that refused one.
    pub refused: Vec<MatchId>,
    /// What the ends of rated matches have made of ratings.
    pub ratings: HashMap<MatchId, Vec<RatingChange>>,
}

/// A player on a leaderboard.
#[derive(Clone, Debug, PartialEq)]
pub struct Leader {
    /// Who.
    pub user: UserId,
    /// The account's display name.
    pub display_name: String,
    /// How strong.
    pub standing: Standing,
}

/// A place on a leaderboard: who is rated alike stands in the order of ids, the highest first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    /// The rating, in points.
    pub points: f64,
    /// Whose.
    pub user: UserId,
}

/// Points in a bucket of ratings: few enough that those who share one are soon counted, enough that
/// the buckets are.
const BUCKET_POINTS: f64 = 4.0;

/// The bucket that a rating is counted in.
fn bucket(points: f64) -> f64 {
    (points / BUCKET_POINTS).floor()
}

/// A new session and its first refresh token's SHA-256.
#[derive(Clone, Debug)]
pub struct NewSession {
    /// Its id.
    pub id: SessionId,
    /// Whose.
    pub user: UserId,
    /// Of its refresh token.
    pub refresh_digest: [u8; 32],
    /// When the refresh token is no longer taken.
    pub expires_at: Timestamp,
}

/// A refresh token that was handed in, and the one that is to take its place.
#[derive(Clone, Debug)]
pub struct RefreshRotation {
    /// SHA-256 of what was handed in.
    pub digest: [u8; 32],
    /// SHA-256 of the new one.
    pub next_digest: [u8; 32],
    /// The time.
    pub now: Timestamp,
    /// When the new one is no longer taken.
    pub next_expires_at: Timestamp,
    /// Until when the access tokens are refused of a session that this ends.
    pub revoked_until: Timestamp,
}

/// What a user changes of the account; `None` stays.
#[derive(Clone, Debug, Default)]
pub struct UserChange {
    /// What others see.
    pub display_name: Option<String>,
    /// A guest's first user name.
    pub username: Option<String>,
    /// Argon2id in PHC form.
    pub password_hash: Option<String>,
}

/// What became of a change.
#[derive(Clone, Debug)]
pub enum UserUpdate {
    /// The account as it is now.
    Done(UserRecord),
    /// There is no such account any more.
    Gone,
    /// It was to be given a user name, and has one.
    HasName,
}

/// How names are compared: those that differ in case alone are one name.
fn folded(username: &str) -> String {
    username.to_lowercase()
}

/// A server process that shares the store with others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRecord {
    /// Its id.
    pub id: NodeId,
    /// Where the others reach its public listener: `host:port`.
    pub address: String,
    /// SHA-256 of the certificate that it shows; `None`: it does not take TLS.
    pub certificate: Option<[u8; 32]>,
}

/// What became of a wish to play a match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is the caller's, in this epoch.
    Mine(u64),
    /// Another node that holds a lease has it.
    Elsewhere(NodeRecord),
    /// There is no such match.
    Unknown,
}

/// A session that ended before its last access token expired.
#[derive(Clone, Copy, Debug)]
pub struct EndedSession {
    /// Its id.
    pub id: SessionId,
    /// Until when its access tokens are refused.
    pub until: Timestamp,
    /// Whose it was, if the account went with it.
    pub deleted_user: Option<UserId>,
}

/// What a socket ticket stands for.
#[derive(Clone, Copy, Debug)]
pub struct Ticket {
    /// Whose.
    pub user: UserId,
    /// Of which sign-in.
    pub session: SessionId,
    /// When the access token expires that it was taken out with.
    pub token_expires_at: Timestamp,
}

/// Where a wish to be matched is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TicketState {
    /// It waits for others, or its match is being made.
    Searching,
    /// It has a match.
    Matched,
    /// Its user took it back.
    Cancelled,
    /// Nobody came in time.
    Expired,
}

/// Players who want to be on one match.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Party {
    /// What they know each other by.
    pub code: String,
    /// How many they are.
    pub size: u8,
}

/// A wish to be matched.
#[derive(Clone, Debug, PartialEq)]
pub struct TicketRecord {
    /// Its id; the oldest has the least.
    pub id: TicketId,
    /// The name of its game.
    pub game: String,
    /// What the match is to be created with: a JSON object. Equal texts agree.
    pub options: String,
    /// How many players such a match begins with.
    pub players: u8,
    /// With whom the user wants to be on the match, if that matters.
    pub party: Option<Party>,
    /// Whose it is.
    pub user: UserId,
    /// That user's display name of today; only read, never written.
    pub display_name: String,
    /// That user's rating in the game, as of the last rated match; only read, never written.
    pub rating: Rating,
    /// Where it is in its life.
    pub state: TicketState,
    /// Its match. One that searches and has one is claimed: the match is being made.
    pub r#match: Option<MatchId>,
    /// Until when it waits.
    pub expires_at: Timestamp,
}

/// What became of a new ticket.
#[derive(Clone, Debug, PartialEq)]
pub enum NewTicket {
    /// It waits.
    Added,
    /// The user searches in this game already, with this one.
    Searching(TicketRecord),
    /// Too many wait.
    Full,
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

/// Everything that is kept.
pub enum Store {
    /// In a file.
    Sqlite(sqlite::Sqlite),
    /// On a server.
    Postgres(postgres::Postgres),
}

/// Connections to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connections {
    /// That nobody uses.
    pub idle: usize,
    /// That somebody uses.
    pub used: usize,
    /// Calls that wait for one.
    pub waiting: usize,
}

impl Store {
    /// Connections to the server, if there is one.
    pub fn connections(&self) -> Option<Connections> {
        match self {
            Self::Sqlite(_) => None,
            Self::Postgres(store) => Some(store.connections()),
        }
    }

    /// Finishes what waits; calls that come later may fail. Blocks.
    pub fn close(&self) {
        match self {
            Self::Sqlite(store) => store.close(),
            // The server finishes what it has begun.
            Self::Postgres(_) => {}
        }
    }
}

/// The result of a call, which goes into the figures.
fn counted<T>(began: Instant, result: Result<T, StoreError>) -> Result<T, StoreError> {
    STORE_TIME.took(began.elapsed());
    result.inspect_err(|error| STORE_ERRORS.of(error.kind()).increment())
}

/// Both stores have the same calls.
macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => {
        impl Store {
            $($(#[$doc])*
            pub async fn $name(&self, $($argument: $type),*) -> Result<$result, StoreError> {
                let (began, _active) = (Instant::now(), STORE_CALLS.hold());
                let result = match self {
                    Self::Sqlite(store) => store.$name($($argument),*).await,
                    Self::Postgres(store) => store.$name($($argument),*).await,
                };
                counted(began, result)
            })*
        }
    };
}

calls! {
    /// Whether it takes changes, for readiness.
    ping() -> ();

    /// Adds an account, and a session with it if there is one to begin.
    ///
    /// [`StoreError::Conflict`]: the user name is taken.
    create_user(user: UserRecord, session: Option<NewSession>) -> ();

    /// An account by its id.
    user(id: UserId) -> Option<UserRecord>;

    /// An account by its user name, in any case.
    user_by_name(username: &str) -> Option<UserRecord>;

    /// Changes an account.
    ///
    /// [`StoreError::Conflict`]: the user name is taken.
    update_user(id: UserId, change: UserChange) -> UserUpdate;

    /// Removes an account and its sessions, which are refused until `revoked_until`, and gives
    /// their ids. Its matches stay, played by nobody in particular.
    delete_user(id: UserId, revoked_until: Timestamp) -> Vec<SessionId>;

    /// Begins a session. [`StoreError::Conflict`]: its user is gone.
    create_session(session: NewSession) -> ();

    /// Puts a new refresh token in the place of a good one; ends the session of a spent one.
    rotate_refresh_token(rotation: RefreshRotation) -> Rotation;

    /// Ends a session; its access tokens are refused until `until`.
    revoke_session(session: SessionId, until: Timestamp) -> ();

    /// The sessions whose access tokens are still to be refused, and until when. Forgets those
    /// that no longer are, and sessions that have expired.
    revocations(now: Timestamp) -> Vec<(SessionId, Timestamp)>;

    /// Writes changes of matches, in order; each whole or not at all, and with it what it makes of
    /// ratings. A match refuses one that does not follow from what is there
    /// ([`MatchChange::previous_seq`]): somebody else writes to that log. All others are written.
    /// The same batch again, after an answer that was lost, is written once, and has the same answer.
    append(changes: Arc<Vec<MatchChange>>) -> Appended;

    /// Keeps the code of a plugin's version, for whoever plays a match of it.
    keep_module(version: String, code: Vec<u8>) -> ();

    /// The code of a plugin's version.
    module(version: String) -> Option<Vec<u8>>;

    /// A match by its id.
    match_record(id: MatchId) -> Option<MatchRecord>;

    /// The latest snapshot of a match's log, if there is one.
    log_snapshot(id: MatchId) -> Option<Snapshot>;

    /// The events of a match's log with numbers above `after`, `limit` at most, in order.
    events(id: MatchId, after: u64, limit: u32) -> Vec<EventRecord>;

    /// The matches that `viewer` may know of and `filter` lets through, newest first.
    matches(viewer: UserId, filter: MatchFilter) -> Vec<MatchRecord>;

    /// Matches that have not ended and in which nothing happened since: public open ones since
    /// `open_before`, the others since `before`. `limit` at most, in the order of their ids, with
    /// ids above `after`.
    stale_matches(
        after: Option<MatchId>, open_before: Timestamp, before: Timestamp, limit: u32
    ) -> Vec<MatchId>;

    /// Those with the highest ratings in a game, `limit` at most; below a place if one is given.
    leaders(game: &str, below: Option<Place>, limit: u32) -> Vec<Leader>;

    /// `limit` players of a game at most, `user` and no more than `above` better ones among them;
    /// and the rank of the first. `None`: the user is not rated there.
    leaders_around(
        game: &str, user: UserId, above: u32, limit: u32
    ) -> Option<(u64, Vec<Leader>)>;

    /// Adds a ticket that searches, unless `most` do. [`StoreError::Conflict`]: its user is gone.
    add_ticket(ticket: TicketRecord, most: u32) -> NewTicket;

    /// A ticket by its id.
    ticket(id: TicketId) -> Option<TicketRecord>;

    /// Takes a ticket back that searches and is not claimed; false: it is not so.
    cancel_ticket(id: TicketId, user: UserId) -> bool;

    /// The tickets that search, claimed or not, oldest first, `limit` at most.
    searching_tickets(limit: u32) -> Vec<TicketRecord>;

    /// Claims groups of tickets for matches that `node` is about to make, each group whole or not at
    /// all. Gives the matches whose groups are claimed.
    claim_tickets(groups: Vec<(MatchId, Vec<TicketId>)>, node: Option<NodeId>) -> Vec<MatchId>;

    /// Ends the claims of `node`, which makes no match now, and those of nodes that hold no lease:
    /// tickets whose match was made are matched, the others search on. Gives all of them.
    settle_tickets(node: Option<NodeId>) -> Vec<TicketId>;

    /// Ends the tickets that have waited to their end without being claimed, and gives them.
    expire_tickets(now: Timestamp) -> Vec<TicketId>;

    /// Forgets the tickets whose time was over `before`, but for those that search.
    forget_tickets(before: Timestamp) -> ();
}
