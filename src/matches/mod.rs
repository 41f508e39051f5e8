//! Runs games: which matches are in this node's memory, how they come and how they go.
//!
//! - [`live`]: one match: who may do what, and what follows ([`core`]: its state and its order)
//! - [`log`]: the durable log and its group commit
//! - [`ticks`]: what is different where the server's clock moves the game; [`ticker`]: that clock;
//!   [`views`]: what it shows
//! - [`outbox`]: what waits to be written to a socket
//! - [`event`]: the engine's own events
//! - [`snapshot`]: what a log comes to, so that a match is rebuilt from the end of it
//! - [`clock`]: seconds, for grace and silence
//! - [`matchmaker`]: brings players together who wait with tickets
//! - [`replay`]: a match gone through again, without a server
//! - [`survey`]: what matches and sockets are doing, for whoever looks from outside
//!
//! The [`Registry`] loads a match when it is first asked for and lets it go when nobody is
//! connected to it; the store has all of it, so memory holds what is played and no more.

mod clock;
mod core;
pub mod event;
mod live;
mod log;
pub mod matchmaker;
mod outbox;
pub mod replay;
mod snapshot;
mod survey;
mod ticker;
mod ticks;
mod views;

pub use clock::Clock;
pub use live::{Attach, Attachment, Caller, Joined, Match, NotIn, problem};
pub use outbox::{Activity, Close, Outbox};
pub use survey::{MatchSurvey, SocketSurvey};

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::value::RawValue;
use serde_json::{Map, Value};
use thiserror::Error;
use tokio::sync::{OnceCell, oneshot};
use tokio::task::{block_in_place, spawn_blocking};

use self::live::Upkeep;
use self::log::{LogHealth, LogSender};
use self::ticker::Ticker;
use crate::auth::secrets::random_bytes;
use crate::cluster::Cluster;
use crate::games::wasm::Plugin;
use crate::games::{BadOption, Catalog, Game, GameType, Mode, NoStart, Seat, Setup, setup};
use crate::ids::{MatchId, NodeId, SessionId, Timestamp, UserId};
use crate::protocol::Player;
use crate::store::{
    Claim, EventRecord, MatchRecord, MatchState, NodeRecord, PlayerRecord, Snapshot, Store,
    StoreError, UserRecord, Visibility,
};
use crate::telemetry::figures::{MATCHES_CREATED, OWNERSHIP, Ownership};

/// Matches in memory at most; more are refused.
pub const MATCHES_MAX: usize = 200_000;
/// Events read from the log in one call while a match is rebuilt.
const REBUILD_PAGE: u32 = 10_000;
/// How often [`Registry::upkeep`] is to be called.
pub const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);
/// How often matches that nobody came back to are looked for.
const SWEEP_INTERVAL_SECONDS: u32 = 60;
/// Matches that are read at once while abandoned ones are looked for.
const SWEEP_PAGE: u32 = 200;
/// An open public match that nothing happened in for so long is ended.
const OPEN_ABANDONED_AFTER: Duration = Duration::from_secs(10 * 60);
/// A running or private match that nothing happened in for so long is ended.
const ABANDONED_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
/// Tries to catch a match that leaves memory at the moment that it is asked for.
const RELOADS_MAX: usize = 8;
/// Letters of join codes: none looks like another. 32 of them: each is worth 5 bits.
const JOIN_CODE_LETTERS: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
/// Letters in a join code: 50 bits.
const JOIN_CODE_LENGTH: usize = 10;

/// Why a match is not to be had.
#[derive(Debug, Error)]
pub enum MatchError {
    /// There is none, or the caller may not know of it.
    #[error("there is no such match")]
    Unknown,
    /// There is no such game.
    #[error("there is no game {0:?}")]
    UnknownGame(String),
    /// The game does not take an option.
    #[error("option {}: {}", .0.field, .0.detail)]
    BadOption(BadOption),
    /// See [`NotIn`].
    #[error("not in: {0:?}")]
    NotIn(NotIn),
    /// Another node plays it.
    #[error("node {} at {} plays it", .0.id, .0.address)]
    Elsewhere(NodeRecord),
    /// This node is draining, or full.
    #[error("this server takes no new matches now")]
    Unavailable,
    /// Its game, or the version that it began with, is not installed here.
    #[error("game {0} is not installed")]
    GameGone(String),
    /// The rules of a game failed at the start of a match; the text is for whoever wrote them.
    #[error("game {0} has failed: {1}")]
    GameFailed(String, String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<NotIn> for MatchError {
    fn from(not: NotIn) -> Self {
        match not {
            NotIn::Hidden => Self::Unknown,
            not => Self::NotIn(not),
        }
    }
}

/// What a match is created with.
#[derive(Clone, Debug, Default)]
pub struct NewMatch {
    /// The game's name.
    pub game: String,
    /// Who may know of it.
    pub visibility: Visibility,
    /// A JSON object; `players` and the game's own.
    pub options: Map<String, Value>,
}

/// A part of a match's log.
pub struct EventPage {
    /// The events, with what clients are told of each.
    pub events: Vec<(EventRecord, Box<RawValue>)>,
    /// The last one's number, if there are more.
    pub next: Option<u64>,
}

/// Whether `viewer` may know of a match.
pub fn may_know(record: &MatchRecord, viewer: UserId) -> bool {
    record.visibility == Visibility::Public
        || record.players.iter().any(|player| player.user == Some(viewer))
}

/// A match's players as others see them.
pub fn players_of(record: &MatchRecord, connected: &[Seat]) -> Vec<Player> {
    let player = |player: &PlayerRecord| Player {
        seat: player.seat,
        user: player.user,
        display_name: player.display_name.clone().unwrap_or_else(|| event::NOBODY.into()),
        connected: connected.contains(&player.seat),
    };
    record.players.iter().map(player).collect()
}

/// The matches of this node.
pub struct Registry {
    store: Arc<Store>,
    catalog: Arc<Catalog>,
    log: LogSender,
    ticker: Arc<Ticker>,
    cluster: Arc<Cluster>,
    log_health: LogHealth,
    /// What all matches and sockets count time with.
    pub clock: Arc<Clock>,
    /// In place of each game's own grace period.
    grace_seconds: Option<u32>,
    draining: AtomicBool,
    /// Held while a plugin is brought from the store.
    loading_plugin: tokio::sync::Mutex<()>,
    /// Whether a look for abandoned matches is under way.
    sweeping: AtomicBool,
    slots: Mutex<HashMap<MatchId, Slot>>,
    /// Where strangers may be seated by quick play, oldest first, as of the last look at all
    /// matches; two who ask at the same moment are to meet, so it takes one at a time.
    waiting: Mutex<Vec<Arc<Match>>>,
}

type Slot = Arc<OnceCell<Arc<Match>>>;

impl Registry {
    /// An empty one, the task that writes its log, which ends with the registry, and the one that
    /// moves `ticks` games, of which a crash may lose `tick_loss`.
    pub fn start(
        store: Arc<Store>,
        catalog: Arc<Catalog>,
        cluster: Arc<Cluster>,
        grace_seconds: Option<u32>,
        tick_loss: Duration,
    ) -> Arc<Self> {
        let (log, log_health) = log::start(Arc::clone(&store));
        Arc::new(Self {
            store,
            catalog,
            log,
            ticker: Ticker::start(tick_loss),
            cluster,
            log_health,
            clock: Arc::new(Clock::new()),
            grace_seconds,
            draining: AtomicBool::new(false),
            loading_plugin: tokio::sync::Mutex::default(),
            slots: Mutex::default(),
            sweeping: AtomicBool::new(false),
            waiting: Mutex::default(),
        })
    }

    /// The games there are.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Whether what is sent to the log is written.
    pub fn log_is_healthy(&self) -> bool {
        self.log_health.load(Ordering::Relaxed)
    }

    /// Makes a match with `creator` on seat 0; gives back once it is committed.
    pub async fn create(
        &self,
        new: NewMatch,
        creator: &UserRecord,
    ) -> Result<Arc<Match>, MatchError> {
        let (live, joined) = self.begin(new, creator)?;
        committed(joined.committed).await?;
        Ok(live)
    }

    /// A new match and its first seat, which are not committed yet.
    fn begin(
        &self,
        new: NewMatch,
        creator: &UserRecord,
    ) -> Result<(Arc<Match>, Joined), MatchError> {
        let join = |live: &Arc<Match>| live.join(creator.id, &creator.display_name, None);
        self.begin_as(MatchId::new(), self.cluster.node(), new, join)
    }

    /// A new match under an id and of a node, with those on its seats whom `seat` puts there.
    fn begin_as<T>(
        &self,
        id: MatchId,
        node: Option<NodeId>,
        new: NewMatch,
        seat: impl FnOnce(&Arc<Match>) -> Result<T, NotIn>,
    ) -> Result<(Arc<Match>, T), MatchError> {
        if self.draining.load(Ordering::Relaxed) || self.slots().len() >= MATCHES_MAX {
            return Err(MatchError::Unavailable);
        }
        let game_type = self.game_type(&new.game)?;
        let info = game_type.info();
        let options = Value::Object(new.options.clone()).to_string();
        let seed = u64::from_ne_bytes(random_bytes());
        let (setup, game) = start(&game_type, new.options, seed)?;
        let record = MatchRecord {
            id,
            game: info.name.clone(),
            game_version: info.version.clone(),
            seed,
            options,
            seats: setup.players,
            state: MatchState::Open,
            visibility: new.visibility,
            join_code: (new.visibility == Visibility::Private).then(join_code),
            created_at: Timestamp::now(),
            seq: 0,
            outcome: None,
            ratings: None,
            snapshot: None,
            players: Vec::new(),
        };
        // In a shared store a match begins in its first epoch; 0 is nobody's.
        let writer = (node, u64::from(node.is_some()));
        let live = self.to_live(record, (None, &[]), &game_type, game, writer)?;
        let slot = OnceCell::new_with(Some(Arc::clone(&live)));
        self.slots().insert(live.id, Arc::new(slot));
        self.still_ours(&live)?;
        match seat(&live) {
            Ok(seated) => {
                MATCHES_CREATED.increment();
                Ok((live, seated))
            }
            Err(not) => {
                self.slots().remove(&live.id);
                Err(not.into())
            }
        }
    }

    /// The match, from memory or rebuilt from the store.
    pub async fn load(&self, id: MatchId) -> Result<Arc<Match>, MatchError> {
        for _ in 0..RELOADS_MAX {
            let live = self.load_once(id).await?;
            // Another life of this node had it, and gave it up.
            if self.still_ours(&live).is_ok() {
                return Ok(live);
            }
        }
        Err(MatchError::Unavailable)
    }

    async fn load_once(&self, id: MatchId) -> Result<Arc<Match>, MatchError> {
        if self.draining.load(Ordering::Relaxed) || !self.cluster.holds_lease() {
            return Err(MatchError::Unavailable);
        }
        let slot = {
            let mut slots = self.slots();
            if slots.len() >= MATCHES_MAX && !slots.contains_key(&id) {
                return Err(MatchError::Unavailable);
            }
            Arc::clone(slots.entry(id).or_default())
        };
        let slot = Loading { registry: self, id, slot: Some(slot) };
        let Some(cell) = &slot.slot else { return Err(MatchError::Unavailable) };
        cell.get_or_try_init(|| self.rebuild(id)).await.cloned()
    }

    /// The lease may have been lost while the match was on its way here, where [`Self::lose_all`] did
    /// not see it; from now on it does.
    fn still_ours(&self, live: &Arc<Match>) -> Result<(), MatchError> {
        if live.node() == self.cluster.node() && self.cluster.holds_lease() {
            return Ok(());
        }
        live.refuse();
        self.forget(live);
        Err(MatchError::Unavailable)
    }

    /// Runs `act` on the match, again if it has just left memory.
    pub async fn with_match<T>(
        &self,
        id: MatchId,
        mut act: impl FnMut(&Arc<Match>) -> Result<T, NotIn>,
    ) -> Result<T, MatchError> {
        for _ in 0..RELOADS_MAX {
            let live = self.load(id).await?;
            match act(&live) {
                Err(NotIn::Retired) => {
                    // Not before the store has all of it.
                    live.settled().await;
                    self.forget(&live);
                }
                answer => return Ok(answer?),
            }
        }
        Err(MatchError::Unavailable)
    }

    /// Seats `user`; gives the seat, and whether it is new, once it is committed.
    pub async fn join(
        &self,
        id: MatchId,
        user: &UserRecord,
        join_code: Option<&str>,
    ) -> Result<(Seat, bool), MatchError> {
        let join = |live: &Arc<Match>| live.join(user.id, &user.display_name, join_code);
        let joined = self.with_match(id, join).await?;
        let new = joined.committed.is_some();
        committed(joined.committed).await?;
        Ok((joined.seat, new))
    }

    /// Gives up the seat of `user`; gives back once it is committed.
    pub async fn leave(&self, id: MatchId, user: UserId) -> Result<(), MatchError> {
        let left = self.with_match(id, |live| live.leave(user)).await?;
        committed(Some(left)).await
    }

    /// Connects a socket to a match.
    pub async fn attach(
        &self,
        id: MatchId,
        caller: Caller,
        outbox: &Arc<Outbox>,
        after: Option<u64>,
    ) -> Result<Attachment, MatchError> {
        let mut older = Vec::new();
        for _ in 0..RELOADS_MAX {
            let attach = |live: &Arc<Match>| match live.attach(caller, outbox, after, &older) {
                Attach::Not(not) => Err(not),
                answer => Ok(answer),
            };
            match self.with_match(id, attach).await? {
                Attach::In(attachment) => return Ok(attachment),
                Attach::NeedsLogAfter(after) => older = log_of(&self.store, id, after).await?,
                Attach::Not(not) => return Err(not.into()),
            }
        }
        Err(MatchError::Unavailable)
    }

    /// Finds an open match of `game` for `user`, the user's own before others', or opens one;
    /// gives it once the seat is committed.
    pub async fn quick_play(&self, game: &str, user: &UserRecord) -> Result<MatchId, MatchError> {
        self.game_type(game)?;
        if !self.cluster.holds_lease() {
            return Err(MatchError::Unavailable);
        }
        let (live, joined) = self.seat_quickly(game, user)?;
        committed(joined.committed).await?;
        Ok(live.id)
    }

    fn seat_quickly(
        &self,
        game: &str,
        user: &UserRecord,
    ) -> Result<(Arc<Match>, Joined), MatchError> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|live| live.welcomes_strangers());
        let of_game = || waiting.iter().filter(|live| live.info().name == game);
        let own = of_game().filter(|live| live.seats(user.id));
        for live in own.chain(of_game()) {
            if let Ok(joined) = live.join(user.id, &user.display_name, None) {
                live.expect_player();
                return Ok((Arc::clone(live), joined));
            }
        }
        let new = NewMatch { game: game.into(), ..NewMatch::default() };
        let (live, joined) = self.begin(new, user)?;
        live.expect_player();
        waiting.push(Arc::clone(&live));
        Ok((live, joined))
    }

    /// Which seats of a match are connected, and the number of the last event that anybody may have
    /// been told of; `None` if it is not in memory: the store has it all then.
    pub fn live_state(&self, record: &MatchRecord) -> Option<(Vec<Seat>, u64)> {
        let slot = self.slots().get(&record.id).cloned()?;
        let live = slot.get()?;
        let (connected, seq) = live.state();
        let relay = live.info().mode == Mode::Relay;
        Some((connected, if relay { seq } else { record.seq }))
    }

    /// Matches in memory.
    pub fn matches_loaded(&self) -> usize {
        self.slots().len()
    }

    /// The events after `after` that `viewer` may see, of up to `limit` of the log.
    pub async fn events(
        &self,
        record: &MatchRecord,
        viewer: UserId,
        after: u64,
        limit: u32,
    ) -> Result<EventPage, MatchError> {
        let records = self.store.events(record.id, after, limit + 1).await?;
        let more = records.len() > limit as usize;
        let records: Vec<_> = records.into_iter().take(limit as usize).collect();
        let next = records.last().filter(|_| more).map(|last| last.seq);
        let corrupt = |error| StoreError::Corrupt(format!("match {}: {error}", record.id));
        let events = match self.load(record.id).await {
            Ok(live) => live.visible(viewer, records).map_err(corrupt)?,
            // Without its rules nobody knows who may see a game's events; the engine's are for all.
            Err(MatchError::GameGone(_) | MatchError::GameFailed(..)) => records
                .into_iter()
                .filter(|record| record.structural)
                .map(|record| event::wire_event(&record).map(|event| (record, event)))
                .collect::<Result<_, _>>()
                .map_err(corrupt)?,
            Err(error) => return Err(error),
        };
        Ok(EventPage { events, next })
    }

    /// Gives up all seats of `user` in the matches in memory; gives back once that is committed.
    pub async fn leave_all(&self, user: UserId) -> Result<(), MatchError> {
        for live in self.loaded() {
            match live.leave(user) {
                Ok(left) => committed(Some(left)).await?,
                Err(NotIn::Overloaded) => return Err(MatchError::Unavailable),
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// Forgets the name of a user whose account is gone.
    pub fn forget_user(&self, user: UserId) {
        for live in self.loaded() {
            live.forget_user(user);
        }
    }

    /// The rules of a game.
    pub fn game_type(&self, name: &str) -> Result<Arc<dyn GameType>, MatchError> {
        self.catalog.find(name).ok_or_else(|| MatchError::UnknownGame(name.into()))
    }

    /// Closes the sockets of sessions that have ended.
    pub fn close_sessions(&self, sessions: &[SessionId]) {
        for live in self.loaded() {
            for session in sessions {
                live.close_session(*session);
            }
        }
    }

    /// Moves the clock on and looks after all matches; for a task that calls it once a second.
    pub fn upkeep(self: &Arc<Self>) {
        self.clock.advance();
        let mut matches = self.loaded();
        matches.retain(|live| match live.upkeep(self.grace_seconds) {
            Upkeep::Keep => live.welcomes_strangers(),
            Upkeep::Unload => {
                self.forget(live);
                false
            }
        });
        matches.sort_by_key(|live| live.id);
        self.wait_here(matches);
        if self.clock.now() % SWEEP_INTERVAL_SECONDS == SWEEP_INTERVAL_SECONDS - 1
            && !self.sweeping.swap(true, Ordering::Relaxed)
        {
            let registry = Arc::clone(self);
            tokio::spawn(async move {
                if let Err(error) = registry.sweep().await {
                    tracing::warn!(%error, "abandoned matches could not be looked for");
                }
                registry.sweeping.store(false, Ordering::Relaxed);
            });
        }
    }

    /// Where strangers may be seated from now on; matches that have begun meanwhile stay.
    fn wait_here(&self, mut matches: Vec<Arc<Match>>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = matches.last().map(|live| live.id);
        let newer = waiting.drain(..).filter(|live| Some(live.id) > newest);
        matches.extend(newer);
        *waiting = matches;
    }

    /// Ends the matches that nobody came back to, a page at a time.
    async fn sweep(&self) -> Result<(), MatchError> {
        let now = Timestamp::now();
        let (open, other) = (now.minus(OPEN_ABANDONED_AFTER), now.minus(ABANDONED_AFTER));
        let mut last = None;
        loop {
            let page = self.store.stale_matches(last, open, other, SWEEP_PAGE).await?;
            for id in &page {
                let ended = match self.with_match(*id, Match::abandon).await {
                    Err(MatchError::GameGone(_) | MatchError::GameFailed(..)) => {
                        self.abandon_in_store(*id).await
                    }
                    // Its owner sees to it.
                    Err(MatchError::Elsewhere(_)) => Ok(()),
                    other => other,
                };
                if let Err(error) = ended {
                    tracing::warn!(r#match = %id, %error, "could not be ended");
                }
            }
            last = page.last().copied();
            if page.len() < SWEEP_PAGE as usize {
                return Ok(());
            }
        }
    }

    /// Ends a match whose rules are not installed any more.
    async fn abandon_in_store(&self, id: MatchId) -> Result<(), MatchError> {
        let node = self.cluster.node();
        let Claim::Mine(epoch) = self.cluster.claim(id).await? else { return Ok(()) };
        let record = self.store.match_record(id).await?.ok_or(MatchError::Unknown)?;
        let writer = (node, epoch);
        let change = live::abandonment(&record, writer, Timestamp::now());
        // Refused: somebody was quicker.
        self.store.append(Arc::new(vec![change])).await?;
        Ok(())
    }

    /// Gives up all matches: other nodes may have taken them.
    pub fn lose_all(&self) {
        for live in self.loaded() {
            live.refuse();
        }
    }

    /// Which other node plays a match, if one does; takes it for this node if none does.
    pub async fn elsewhere(&self, id: MatchId) -> Result<Option<NodeRecord>, MatchError> {
        if self.cluster.node().is_none() {
            return Ok(None);
        }
        match self.load(id).await {
            Err(MatchError::Elsewhere(node)) => Ok(Some(node)),
            // What there is to say of it is said by whoever asks.
            Ok(_)
            | Err(MatchError::Unknown | MatchError::GameGone(_) | MatchError::GameFailed(..)) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Takes no new matches and no more commands, and waits until all that was acknowledged, or
    /// will be, is committed. Then [`Self::give_up`] tells all sockets to come back.
    pub async fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        let waits: Vec<_> = self.loaded().iter().filter_map(Match::drain).collect();
        for wait in waits {
            // An error: the match was given up, and its sockets know.
            let _ = wait.await;
        }
    }

    /// Tells all sockets to come back; nobody is told what the store has not committed.
    pub fn give_up(&self) {
        for live in self.loaded() {
            live.give_up();
        }
    }

    async fn rebuild(&self, id: MatchId) -> Result<Arc<Match>, MatchError> {
        // What never changes tells whether it can be played here.
        let record = self.store.match_record(id).await?.ok_or(MatchError::Unknown)?;
        let game_type = self.game_type_of(&record).await?;
        // From here on nobody else writes. What has ended is nobody's: it is only read.
        let node = self.cluster.node();
        let epoch = match record.state {
            MatchState::Ended => 0,
            MatchState::Open | MatchState::Running => match self.cluster.claim(id).await? {
                Claim::Mine(epoch) => {
                    OWNERSHIP.of(Ownership::Taken).increment();
                    epoch
                }
                Claim::Elsewhere(node) => return Err(MatchError::Elsewhere(node)),
                Claim::Unknown => return Err(MatchError::Unknown),
            },
        };
        let record = self.store.match_record(id).await?.ok_or(MatchError::Unknown)?;
        let writer = (node, epoch);
        let Some(snapshot) = self.store.log_snapshot(id).await? else {
            return self.replay(record, None, &game_type, writer).await;
        };
        match self.replay(record.clone(), Some(&snapshot), &game_type, writer).await {
            Err(MatchError::Store(StoreError::Corrupt(error))) => {
                tracing::warn!(r#match = %id, error, "a snapshot is of no use, the whole log is replayed");
                self.replay(record, None, &game_type, writer).await
            }
            answer => answer,
        }
    }

    /// The rules that a match began with: those of a plugin may be in the store alone.
    async fn game_type_of(&self, record: &MatchRecord) -> Result<Arc<dyn GameType>, MatchError> {
        let known = || self.catalog.find_version(&record.game, &record.game_version);
        if let Some(known) = known() {
            return Ok(known);
        }
        // Of many matches that come at once one brings the module.
        let _loading = self.loading_plugin.lock().await;
        match known() {
            Some(known) => Ok(known),
            None => kept_plugin(&self.store, record).await.map(|plugin| self.catalog.know(plugin)),
        }
    }

    /// The match from what is in the store: the log after the snapshot, or all of it.
    async fn replay(
        &self,
        record: MatchRecord,
        snapshot: Option<&Snapshot>,
        game_type: &Arc<dyn GameType>,
        writer: live::Writer,
    ) -> Result<Arc<Match>, MatchError> {
        let id = record.id;
        let corrupt = |what: String| StoreError::Corrupt(format!("match {id}: {what}"));
        let options = serde_json::from_str(&record.options).map_err(|e| corrupt(e.to_string()))?;
        let events = log_of(&self.store, id, snapshot.map_or(0, |snapshot| snapshot.seq)).await?;
        let rebuild = || {
            let (_, game) =
                start(game_type, options, record.seed).map_err(|error| match error {
                    MatchError::BadOption(bad) => {
                        corrupt(format!("option {}: {}", bad.field, bad.detail)).into()
                    }
                    error => error,
                })?;
            self.to_live(record, (snapshot, &events), game_type, game, writer)
        };
        // Rules of the server's own are quick; others have fuel for long.
        if game_type.info().plugin { block_in_place(rebuild) } else { rebuild() }
    }

    fn to_live(
        &self,
        record: MatchRecord,
        (snapshot, events): (Option<&Snapshot>, &[EventRecord]),
        game_type: &Arc<dyn GameType>,
        game: Box<dyn Game>,
        writer: live::Writer,
    ) -> Result<Arc<Match>, MatchError> {
        let (id, info) = (record.id, game_type.info().clone());
        let node = live::Node {
            clock: Arc::clone(&self.clock),
            ticker: Arc::clone(&self.ticker),
            log: self.log.clone(),
            cluster: Arc::clone(&self.cluster),
            writer,
        };
        Match::rebuild(record, snapshot, events, info, game, node)
            .map_err(|what| StoreError::Corrupt(format!("match {id}: {what}")).into())
    }

    fn loaded(&self) -> Vec<Arc<Match>> {
        self.slots().values().filter_map(|slot| slot.get().cloned()).collect()
    }

    /// Lets a retired match go, unless another has taken its place.
    fn forget(&self, live: &Arc<Match>) {
        let mut slots = self.slots();
        let current = slots.get(&live.id).and_then(|slot| slot.get());
        if current.is_some_and(|current| Arc::ptr_eq(current, live)) {
            slots.remove(&live.id);
        }
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<MatchId, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All of a match's log after `after`.
async fn log_of(store: &Store, id: MatchId, after: u64) -> Result<Vec<EventRecord>, StoreError> {
    let mut events: Vec<EventRecord> = Vec::new();
    loop {
        let last = events.last().map_or(after, |event| event.seq);
        let page = store.events(id, last, REBUILD_PAGE).await?;
        let whole = page.len() < REBUILD_PAGE as usize;
        events.extend(page);
        if whole {
            return Ok(events);
        }
    }
}

/// The plugin that a match began with, from the store.
async fn kept_plugin(store: &Store, record: &MatchRecord) -> Result<Arc<Plugin>, MatchError> {
    let (name, version) = (record.game.clone(), &record.game_version);
    let gone = || MatchError::GameGone(format!("{name} {version}"));
    let code = store.module(version.clone()).await?.ok_or_else(gone)?;
    let loaded = {
        let name = name.clone();
        spawn_blocking(move || Plugin::load(&name, &code)).await
    };
    let loaded = loaded.unwrap_or_else(|panic| Err(panic.to_string()));
    let plugin = loaded.map_err(|why| MatchError::GameFailed(name, why))?;
    if plugin.info().version != *version {
        let what = format!("under {version} it has module {}", plugin.info().version);
        return Err(StoreError::Corrupt(what).into());
    }
    Ok(Arc::new(plugin))
}

/// The state that a match of these options begins with.
fn start(
    game_type: &Arc<dyn GameType>,
    options: Map<String, Value>,
    seed: u64,
) -> Result<(Setup, Box<dyn Game>), MatchError> {
    let info = game_type.info();
    let setup = setup(info, options, seed).map_err(MatchError::BadOption)?;
    let game = game_type.start(&setup).map_err(|error| match error {
        NoStart::BadOption(bad) => MatchError::BadOption(bad),
        NoStart::Failed(why) => MatchError::GameFailed(info.name.clone(), why),
    })?;
    Ok((setup, game))
}

/// A match that is being loaded. Whoever waits for it may go away at any time; the last one takes an
/// empty slot along.
struct Loading<'a> {
    registry: &'a Registry,
    id: MatchId,
    slot: Option<Slot>,
}

impl Drop for Loading<'_> {
    fn drop(&mut self) {
        let mut slots = self.registry.slots();
        let Some(slot) = self.slot.take() else { return };
        // Slots are cloned under the lock alone, so two holders are the map and this.
        let last = !slot.initialized() && Arc::strong_count(&slot) == 2;
        let own = slots.get(&self.id).is_some_and(|current| Arc::ptr_eq(current, &slot));
        // Before the lock is given back, so that the next to look counts right.
        drop(slot);
        if last && own {
            slots.remove(&self.id);
        }
    }
}

/// Waits for a commit; the match is given up where none comes.
async fn committed(commit: Option<oneshot::Receiver<()>>) -> Result<(), MatchError> {
    match commit {
        Some(commit) => commit.await.map_err(|_| MatchError::Unavailable),
        None => Ok(()),
    }
}

fn join_code() -> String {
    let bytes: [u8; JOIN_CODE_LENGTH] = random_bytes();
    bytes.iter().map(|byte| char::from(JOIN_CODE_LETTERS[usize::from(byte % 32)])).collect()
}
