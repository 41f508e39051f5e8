//! One match that is played on this node: who may do what, and what follows.
//!
//! A match is a state machine behind a lock, not a task: whoever brings a command runs it to the
//! end, so a message costs no hand-over and an idle match costs its memory alone. The lock is never
//! held across a wait. A change first gets its room in the log ([`Match::begin`]), so that what has
//! changed here always reaches the store.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot};

use super::clock::Clock;
use super::core::{ACKS_MAX, Additions, Core, Earlier, Occupant, Output, Socket};
use super::event::{Structural, Who, wire_event};
use super::log::{Entry, LogSender};
use super::outbox::{Close, Outbox};
use super::snapshot;
use super::ticker::Ticker;
use super::ticks::{Gathered, TICK_EVENTS_MAX};
use crate::cluster::Cluster;
use crate::games::{Game, GameInfo, Leaving, Mode, Outcome, Refusal, Seat, Viewer};
use crate::ids::{MatchId, NodeId, SessionId, Timestamp, UserId};
use crate::protocol::{Frame, Problem, ServerMessage};
use crate::ratings::RatingChange;
use crate::store::{EventRecord, MatchChange, MatchRecord, MatchState, Snapshot, Visibility};
use crate::telemetry::figures::{COMMANDS, CommandResult, OWNERSHIP, Ownership};

/// Events that one match may have: a runaway client fills no disk, and whoever comes back can be
/// told all of them.
const EVENTS_MAX: u64 = 20_000;
/// Commands of a `relay` seat whose repetition is answered by the first one's `ack`.
const RELAY_ACKS_MAX: usize = 256;
/// Events of the log that a socket of a `ticks` game is told when it comes back; one that is further
/// behind starts from the view.
const MISSED_STEPS_MAX: u64 = 1024;
/// Numbers that a `relay` match may use before it writes down that it has: after a crash it goes
/// on above them, so that no number ever names two messages.
const RELAY_RESERVE: u64 = 1 << 20;
/// How long the sockets of an ended match stay open, in seconds.
const ENDED_LINGER_SECONDS: u32 = 5;
/// How long a match that nobody is connected to stays in memory, in seconds.
const IDLE_SECONDS: u32 = 5;

/// A match on this node.
pub struct Match {
    /// Its id.
    pub id: MatchId,
    info: GameInfo,
    pub(super) clock: Arc<Clock>,
    ticker: Arc<Ticker>,
    log: LogSender,
    cluster: Arc<Cluster>,
    /// As whom and in which epoch it is played here.
    writer: Writer,
    core: Mutex<Core>,
}

/// Where a match is played, and since when.
pub struct Node {
    /// What it counts time with.
    pub clock: Arc<Clock>,
    /// What moves it, if it is a `ticks` game.
    pub(super) ticker: Arc<Ticker>,
    /// What it writes to.
    pub log: LogSender,
    /// Who may play what.
    pub cluster: Arc<Cluster>,
    /// As whom and in which epoch it is played.
    pub writer: Writer,
}

/// A node, unless it is alone, and the epoch in which it plays a match.
pub type Writer = (Option<NodeId>, u64);

/// Who connects.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// The account.
    pub user: UserId,
    /// The sign-in: when it ends, its sockets are closed.
    pub session: SessionId,
}

/// Why somebody is not in a match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotIn {
    /// All seats are taken.
    Full,
    /// The match is over.
    Ended,
    /// The match is private and the caller not of it.
    Hidden,
    /// The caller has no seat.
    NotSeated,
    /// The log is full, or the match has too many sockets.
    Overloaded,
    /// It left memory: load it anew.
    Retired,
}

/// A seat that was taken, or had been before.
pub struct Joined {
    /// Which one.
    pub seat: Seat,
    /// Comes once it is committed; `None`: the caller had it already.
    pub committed: Option<oneshot::Receiver<()>>,
}

/// What became of an `attach`.
pub enum Attach {
    /// The socket is in; its welcome is on the way.
    In(Attachment),
    /// First the log's events with numbers above this one are needed.
    NeedsLogAfter(u64),
    /// It is not.
    Not(NotIn),
}

/// What a match wants after a look at the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upkeep {
    /// To go on.
    Keep,
    /// To leave memory: it is retired, and all of it is in the store.
    Unload,
}

/// A change under way: it has its room in the log, and is sent before the lock is given back.
pub(super) struct Change<'a> {
    room: mpsc::Permit<'a, Entry>,
    pub additions: Additions,
}

impl Match {
    /// A match from its record, a snapshot of its log, and its log after that. An error says what of
    /// them makes no sense.
    pub fn rebuild(
        record: MatchRecord,
        log_snapshot: Option<&Snapshot>,
        events: &[EventRecord],
        info: GameInfo,
        game: Box<dyn Game>,
        node: Node,
    ) -> Result<Arc<Self>, String> {
        let Node { clock, ticker, log, cluster, writer } = node;
        let id = record.id;
        let core = Core::rebuild(record, log_snapshot, events, info.mode, game, clock.now())?;
        let core = Mutex::new(core);
        Ok(Arc::new(Self { id, info, clock, ticker, log, cluster, writer, core }))
    }

    /// Gives `user` the lowest free seat, and starts the match if it was the last one.
    pub fn join(
        self: &Arc<Self>,
        user: UserId,
        display_name: &str,
        join_code: Option<&str>,
    ) -> Result<Joined, NotIn> {
        let mut core = self.lock()?;
        if let Some(seat) = core.seat_of(user) {
            return Ok(Joined { seat, committed: None });
        }
        let creator = core.seq == 0;
        if core.record.visibility == Visibility::Private && !creator {
            let codes = core.record.join_code.as_deref().zip(join_code);
            codes.filter(|(code, given)| code == given).ok_or(NotIn::Hidden)?;
        }
        if core.record.state == MatchState::Ended {
            return Err(NotIn::Ended);
        }
        let free = core.seats.iter().position(Option::is_none).ok_or(NotIn::Full)?;
        let mut change = self.begin(&mut core)?;
        let seat = self.take_seat(&mut core, &mut change, free, (user, display_name));
        let committed = core.when_committed();
        self.send(&mut core, change);
        Ok(Joined { seat, committed: Some(committed) })
    }

    /// Seats all players of a new match at once; what is given comes once that is committed.
    pub fn seat_all(
        self: &Arc<Self>,
        players: &[(UserId, &str)],
    ) -> Result<oneshot::Receiver<()>, NotIn> {
        let mut core = self.lock()?;
        if players.len() > core.seats.len() {
            return Err(NotIn::Full);
        }
        let mut change = self.begin(&mut core)?;
        for (place, player) in players.iter().enumerate() {
            self.take_seat(&mut core, &mut change, place, *player);
        }
        let committed = core.when_committed();
        self.send(&mut core, change);
        Ok(committed)
    }

    /// Gives a player the free seat at `place`, and starts the match if it was the last one.
    fn take_seat(
        self: &Arc<Self>,
        core: &mut Core,
        change: &mut Change<'_>,
        place: usize,
        (user, display_name): (UserId, &str),
    ) -> Seat {
        let now = self.clock.now();
        let joined_seq = core.seq + 1;
        let occupant = Occupant::new(Some(user), display_name.to_owned(), joined_seq, now);
        core.seats[place] = Some(occupant);
        let seat = Seat(u8::try_from(place).unwrap_or(u8::MAX));
        change.additions.seats.push((seat, Some(user)));
        let who = Some(Who { user: Some(user), display_name: display_name.to_owned() });
        core.happen(&mut change.additions, &Structural::Joined { seat, who });
        let ready = self.info.mode == Mode::Relay || core.seats.iter().all(Option::is_some);
        if core.record.state == MatchState::Open && ready {
            core.record.state = MatchState::Running;
            let players = core.record.seats;
            core.happen(&mut change.additions, &Structural::Started { players });
            core.restart_grace(now);
            self.start_clock(core);
        }
        core.idle_since = now;
        seat
    }

    /// Gives up the seat of `user`: an open match is left, a running one resigned. What is given
    /// back comes once that is committed; it comes at once where the seat was given up before.
    pub fn leave(self: &Arc<Self>, user: UserId) -> Result<oneshot::Receiver<()>, NotIn> {
        let mut core = self.lock()?;
        let private = core.record.visibility == Visibility::Private;
        let not_seated = if private { NotIn::Hidden } else { NotIn::NotSeated };
        let seat = core.seat_of(user).ok_or(not_seated)?;
        let gone = core.occupant(seat).is_some_and(|occupant| occupant.gone);
        if core.record.state != MatchState::Ended && !gone {
            self.vacate(&mut core, seat, Leaving::Resigned)?;
        }
        Ok(core.when_committed())
    }

    /// Ends a match that nobody has come back to.
    pub fn abandon(self: &Arc<Self>) -> Result<(), NotIn> {
        let mut core = self.lock()?;
        if core.record.state != MatchState::Ended && core.sockets.is_empty() {
            let mut change = self.begin(&mut core)?;
            let outcome = nobody_wins("abandoned");
            core.end(&mut change.additions, outcome, None, self.clock.now());
            core.tell_end();
            self.send(&mut core, change);
        }
        Ok(())
    }

    fn vacate(self: &Arc<Self>, core: &mut Core, seat: Seat, why: Leaving) -> Result<(), NotIn> {
        let mut change = self.begin(core)?;
        let relay = self.info.mode == Mode::Relay;
        let running = core.record.state == MatchState::Running;
        let free = relay || !running;
        let reason = if free && why == Leaving::Resigned { Leaving::Left } else { why };
        core.vacate(seat, free);
        if free {
            change.additions.seats.push((seat, None));
        }
        let tick = core.ticks.as_ref().filter(|_| running).map(|ticks| ticks.tick);
        core.happen(&mut change.additions, &Structural::Left { seat, reason, tick });
        if running {
            core.game.refuel(false);
            core.game.leave(seat, reason);
            core.show();
        }
        let outcome = if core.seats.iter().all(Option::is_none) {
            Some(nobody_wins(if relay { "completed" } else { "abandoned" }))
        } else {
            core.game.outcome().filter(|_| running)
        };
        core.idle_since = self.clock.now();
        core.refuse_inputs(if outcome.is_some() { None } else { Some(seat) });
        if let Some(outcome) = outcome {
            core.end(&mut change.additions, outcome, None, self.clock.now());
            core.tell_end();
        }
        self.send(core, change);
        Ok(())
    }

    /// Connects a socket. `older` holds the log's events from `after` on where an earlier call
    /// asked for them.
    pub fn attach(
        self: &Arc<Self>,
        caller: Caller,
        outbox: &Arc<Outbox>,
        after: Option<u64>,
        older: &[EventRecord],
    ) -> Attach {
        let mut core = match self.lock() {
            Ok(core) => core,
            Err(not) => return Attach::Not(not),
        };
        if !self.cluster.holds_lease() {
            return Attach::Not(NotIn::Overloaded);
        }
        let seat = core.seat_of(caller.user);
        if seat.is_none() && core.record.visibility == Visibility::Private {
            return Attach::Not(NotIn::Hidden);
        }
        if core.is_clogged() || (seat.is_none() && !core.has_room_to_watch(caller.session)) {
            return Attach::Not(NotIn::Overloaded);
        }
        let mut after = after.filter(|after| *after <= core.seq);
        if let Some(asked) = after.filter(|asked| *asked < core.history.after) {
            let needed = asked + 1..=core.history.after;
            let in_log = older.iter().map(|event| event.seq).take_while(|seq| needed.contains(seq));
            let too_far = match self.info.mode {
                Mode::Relay => true,
                Mode::Ticks => core.history.after - asked > MISSED_STEPS_MAX,
                Mode::Turns => false,
            };
            if too_far {
                after = None;
            } else if !in_log.eq(needed.clone()) {
                return Attach::NeedsLogAfter(asked);
            }
        }
        let now = self.clock.now();
        core.idle_since = core.idle_since.max(now);
        if seat.is_some() && !core.has_player() {
            // Somebody waits again: the others' grace begins.
            core.restart_grace(now);
        }
        let viewer = seat.map_or(Viewer::Spectator, Viewer::Seat);
        core.admit(&self.info, outbox, (viewer, caller.session), after, older);
        self.start_clock(&mut core);
        let (live, outbox) = (Arc::clone(self), Arc::clone(outbox));
        Attach::In(Attachment { live, seat, user: caller.user, outbox })
    }

    /// Which seats a socket holds now, and the last event's number.
    pub fn state(&self) -> (Vec<Seat>, u64) {
        let core = self.lock_any();
        (core.sockets.iter().filter_map(Socket::seat).collect(), core.seq)
    }

    /// Those of `records` that `user` may see, as clients are told.
    pub fn visible(
        &self,
        user: UserId,
        records: Vec<EventRecord>,
    ) -> serde_json::Result<Vec<(EventRecord, Box<RawValue>)>> {
        let mut core = self.lock_any();
        core.game.refuel(false);
        let viewer = core.seat_of(user).map_or(Viewer::Spectator, Viewer::Seat);
        let mut visible = Vec::with_capacity(records.len());
        for record in records {
            let event = wire_event(&record)?;
            let viewer = core.viewer_at(viewer, record.seq);
            if core.audience(&record, &event).includes(viewer) {
                visible.push((record, event));
            }
        }
        Ok(visible)
    }

    /// Whether quick play may seat strangers here: open to all, with the game's own options, a
    /// seat that is free, and a player who is there, or on the way from quick play.
    pub fn welcomes_strangers(&self) -> bool {
        let Ok(core) = self.lock() else { return false };
        let open = match core.record.state {
            MatchState::Open => true,
            MatchState::Running => self.info.mode == Mode::Relay,
            MatchState::Ended => false,
        };
        let now = self.clock.now();
        let on_the_way = core.expected_at.is_some_and(|at| now.saturating_sub(at) <= IDLE_SECONDS);
        open && (on_the_way || core.has_player())
            && core.record.visibility == Visibility::Public
            && core.record.options == "{}"
            && core.seats.iter().any(Option::is_none)
    }

    /// Somebody whom quick play has seated is about to connect.
    pub fn expect_player(&self) {
        self.lock_any().expected_at = Some(self.clock.now());
    }

    /// Whether `user` has a seat.
    pub fn seats(&self, user: UserId) -> bool {
        self.lock_any().seat_of(user).is_some()
    }

    /// Forgets the name of a user whose account is gone.
    pub fn forget_user(&self, user: UserId) {
        self.lock_any().forget_user(user);
    }

    /// As whom it is played here.
    pub fn node(&self) -> Option<NodeId> {
        self.writer.0
    }

    /// What its game is.
    pub fn info(&self) -> &GameInfo {
        &self.info
    }

    /// The log has committed the changes up to `number`, and with them what they made of ratings:
    /// whoever waited for them is told.
    pub fn committed(&self, number: u64, ratings: Option<&[RatingChange]>) {
        self.lock_any().committed(number, ratings);
    }

    /// The log has refused a change. What was not committed never was; sockets come back to what
    /// the store has.
    pub fn refuse(&self) {
        OWNERSHIP.of(Ownership::Lost).increment();
        self.lock_any().refused = true;
        self.give_up();
    }

    /// Whether the log has refused a change of this life of the match.
    pub fn is_refused(&self) -> bool {
        self.lock_any().refused
    }

    /// Waits for the store no longer: nobody is told what it has not committed.
    pub fn give_up(&self) {
        let mut core = self.lock_any();
        core.retired = true;
        core.pending.clear();
        core.close_all(Close::COME_BACK);
    }

    /// Comes once the store has all that was sent, or never will: the match can be loaded anew.
    pub async fn settled(&self) {
        let committed = {
            let mut core = self.lock_any();
            if core.refused {
                return;
            }
            core.when_committed()
        };
        // An error: it has been given up.
        let _ = committed.await;
    }

    /// Takes no more commands and writes what a crash would lose; what is given comes once all of
    /// it is committed.
    pub fn drain(self: &Arc<Self>) -> Option<oneshot::Receiver<()>> {
        let mut core = self.lock().ok()?;
        if !self.put_away(&mut core) {
            tracing::error!(r#match = %self.id, "the log is full: the shared state was not saved");
        }
        core.retired = true;
        Some(core.when_committed())
    }

    /// Closes the sockets of a session that has ended.
    pub fn close_session(&self, session: SessionId) {
        let core = self.lock_any();
        for socket in core.sockets.iter().filter(|socket| socket.session == session) {
            socket.outbox.close(Close::REVOKED);
        }
    }

    /// A look at the clock, once a second: pings, grace, the end's linger, unloading.
    pub fn upkeep(self: &Arc<Self>, grace_seconds: Option<u32>) -> Upkeep {
        let mut core = self.lock_any();
        if core.retired {
            let settled = core.refused || core.sent == core.written;
            return if settled { Upkeep::Unload } else { Upkeep::Keep };
        }
        let now = self.clock.now();
        let grace_seconds = grace_seconds.unwrap_or(self.info.grace_seconds);
        core.ping_the_silent(now);
        if core.record.state == MatchState::Ended
            && now.saturating_sub(core.idle_since) >= ENDED_LINGER_SECONDS
        {
            core.emit(Output::CloseAll(Close::OVER));
        }
        for line in core.game.take_lines() {
            tracing::debug!(r#match = %self.id, game = self.info.name, line, "says its game");
        }
        self.end_if_failed(&mut core);
        while let Some(seat) = core.overdue(grace_seconds, now, self.info.mode) {
            if self.vacate(&mut core, seat, Leaving::Timeout).is_err() {
                break;
            }
        }
        if core.dirty {
            self.save(&mut core);
        }
        let relay_waits = self.info.mode == Mode::Relay && core.seats.iter().any(Option::is_some);
        let kept_seconds = if relay_waits { grace_seconds.max(IDLE_SECONDS) } else { IDLE_SECONDS };
        let idle = core.sockets.is_empty()
            && now.saturating_sub(core.idle_since) > kept_seconds
            && self.put_away(&mut core)
            && core.sent == core.written;
        core.retired = idle;
        if idle { Upkeep::Unload } else { Upkeep::Keep }
    }

    /// Ends the match if its rules have failed, in a call whose answer nobody waited for an end in.
    fn end_if_failed(self: &Arc<Self>, core: &mut Core) {
        if core.record.state == MatchState::Ended || core.game.failure().is_none() {
            return;
        }
        core.refuse_inputs(None);
        if let Some(outcome) = core.game.outcome() {
            // No room in the log: upkeep tries again.
            let _ = self.end(core, outcome);
        }
    }

    /// Whoever finds the match retired must load it anew.
    fn lock(&self) -> Result<MutexGuard<'_, Core>, NotIn> {
        Some(self.lock_any()).filter(|core| !core.retired).ok_or(NotIn::Retired)
    }

    pub(super) fn lock_any(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` while somebody else works on it.
    pub(super) fn try_lock(&self) -> Option<MutexGuard<'_, Core>> {
        match self.core.try_lock() {
            Ok(core) => Some(core),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    pub(super) fn holds_lease(&self) -> bool {
        self.cluster.holds_lease()
    }

    /// The time between two steps of a `ticks` game.
    pub(super) fn period(&self) -> Duration {
        Duration::from_secs(1) / u32::from(self.info.tick_hz.unwrap_or(1).max(1))
    }

    pub(super) fn ticker(&self) -> &Arc<Ticker> {
        &self.ticker
    }

    /// Room in the log for one change, which must be sent; nobody is told more before it is
    /// committed.
    pub(super) fn begin(&self, core: &mut Core) -> Result<Change<'_>, NotIn> {
        let change = self.begin_behind(core)?;
        core.hold();
        Ok(change)
    }

    /// Room in the log for one change, which must be sent and is committed behind what is told.
    pub(super) fn begin_behind(&self, core: &mut Core) -> Result<Change<'_>, NotIn> {
        if core.is_clogged() {
            return Err(NotIn::Overloaded);
        }
        let room = self.log.try_reserve().map_err(|_| NotIn::Overloaded)?;
        core.sent += 1;
        let additions = Additions { at: Timestamp::now(), ..Additions::default() };
        Ok(Change { room, additions })
    }

    pub(super) fn send(self: &Arc<Self>, core: &mut Core, Change { room, additions }: Change<'_>) {
        let relay = self.info.mode == Mode::Relay;
        let new = additions.events.first().is_some_and(|event| event.seq == 1);
        let mut events = core.ticks.as_mut().map(|ticks| ticks.take_unsaved()).unwrap_or_default();
        events.extend(additions.events);
        let snapshot = match &core.ticks {
            Some(ticks) => Some(ticks.tick.to_string()),
            None if relay => core.game.snapshot().map(|json| json.get().into()),
            None => None,
        };
        let seq = if relay { core.reserved } else { core.seq };
        let previous_seq = std::mem::replace(&mut core.stored_seq, seq);
        let change = MatchChange {
            id: self.id,
            node: self.writer.0,
            epoch: self.writer.1,
            create: new.then(|| Box::new(core.record.clone())),
            events,
            seats: additions.seats,
            state: core.record.state,
            seq,
            previous_seq,
            outcome: core.record.outcome.clone(),
            rated: self.is_rated(core),
            snapshot,
            log_snapshot: if relay { None } else { snapshot::take_if_due(core) },
            at: additions.at,
        };
        core.dirty = false;
        room.send(Entry { change, number: core.sent, origin: Arc::clone(self) });
    }

    /// Whether its end moves ratings: somebody has won or all have drawn, in public, and nobody won
    /// just because another never came.
    fn is_rated(&self, core: &Core) -> bool {
        let Some(outcome) = &core.record.outcome else { return false };
        let decided = outcome.draw || !outcome.winners.is_empty();
        let public = core.record.visibility == Visibility::Public;
        let never_came = outcome.reason == Leaving::Timeout.reason()
            && core.seats.iter().flatten().any(|occupant| occupant.applied.is_empty());
        let many = core.record.seats > 1;
        self.info.mode != Mode::Relay && public && many && decided && !never_came
    }

    /// Writes the exact last number of a `relay` match, so that it goes on there without a gap, and
    /// all of a `ticks` match. False: the log has no room.
    pub(super) fn put_away(self: &Arc<Self>, core: &mut Core) -> bool {
        match &core.ticks {
            Some(ticks) => ticks.is_saved() || self.save_behind(core, Instant::now()),
            None => (core.reserved <= core.seq && !core.dirty) || self.save_relay(core, 0),
        }
    }

    /// Writes what a crash would lose. False: the log has no room.
    fn save(self: &Arc<Self>, core: &mut Core) -> bool {
        match core.ticks {
            Some(_) => self.save_behind(core, Instant::now()),
            None => self.save_relay(core, RELAY_RESERVE),
        }
    }

    /// Writes the shared state, and `reserve` numbers more as used. False: the log has no room.
    fn save_relay(self: &Arc<Self>, core: &mut Core, reserve: u64) -> bool {
        let Ok(change) = self.begin(core) else { return false };
        core.reserved = core.seq + reserve;
        self.send(core, change);
        true
    }
}

/// The end of a match that nobody can play any more.
pub(super) fn abandonment(
    record: &MatchRecord,
    (node, epoch): Writer,
    at: Timestamp,
) -> MatchChange {
    let outcome = nobody_wins("abandoned");
    let seq = record.seq + 1;
    let ended = Structural::Ended(outcome.clone());
    MatchChange {
        id: record.id,
        node,
        epoch,
        create: None,
        events: vec![ended.record(seq, at)],
        seats: Vec::new(),
        state: MatchState::Ended,
        seq,
        previous_seq: record.seq,
        outcome: Some(outcome),
        rated: false,
        snapshot: None,
        log_snapshot: None,
        at,
    }
}

fn nobody_wins(reason: &str) -> Outcome {
    Outcome { winners: Vec::new(), draw: false, reason: reason.into() }
}

/// One socket's place in a match; dropping it leaves.
pub struct Attachment {
    live: Arc<Match>,
    /// `None` for a spectator.
    seat: Option<Seat>,
    user: UserId,
    outbox: Arc<Outbox>,
}

impl Attachment {
    /// What is played.
    pub fn info(&self) -> &GameInfo {
        &self.live.info
    }

    /// Which match.
    pub fn match_id(&self) -> MatchId {
        self.live.id
    }

    /// Whose place; `None` for a spectator.
    pub fn seat(&self) -> Option<Seat> {
        self.seat
    }

    /// Runs a command of this socket's player; the answer goes out by way of the outbox.
    pub fn command(&self, id: u64, command: &RawValue) {
        let mut core = self.live.lock_any();
        if !self.live.cluster.holds_lease() {
            // Another node may play the match by now: nothing is said of it here.
            return self.outbox.close(Close::COME_BACK);
        }
        let result = self.try_command(&mut core, id, command).unwrap_or_else(|problem| {
            core.reply(&self.outbox, &ServerMessage::Error { id: Some(id), problem: &problem });
            if problem.status == OVERLOADED {
                CommandResult::Overloaded
            } else {
                CommandResult::Refused
            }
        });
        COMMANDS.of(result).increment();
    }

    /// Answers by an ack, unless there is a problem.
    fn try_command(
        &self,
        core: &mut Core,
        id: u64,
        command: &RawValue,
    ) -> Result<CommandResult, Problem> {
        let not_seated = || problem("not-seated", "you have no seat in this match");
        let seat = self.seat.ok_or_else(not_seated)?;
        let state = core.record.state;
        let occupant = core.occupant(seat).filter(|occupant| occupant.user == Some(self.user));
        let occupant = occupant.ok_or_else(not_seated)?;
        match occupant.earlier(id) {
            Earlier::New => {}
            Earlier::Applied(seq) => {
                self.ack(core, id, seq);
                return Ok(CommandResult::Repeated);
            }
            Earlier::Stale => return Err(stale()),
        }
        if state != MatchState::Running {
            return Err(problem("match-not-running", &format!("the match is {}", state.as_str())));
        }
        if occupant.gone {
            return Err(problem("not-seated", "you gave this seat up"));
        }
        if core.retired {
            return Err(problem("overloaded", "the match moves: come back with after"));
        }
        let mut gathered = core.ticks.as_mut().map(|ticks| ticks.gathered(seat, id));
        match (&mut gathered, &mut core.ticks) {
            (Some(Gathered::Waits), Some(ticks)) => {
                ticks.gather(seat, id, Vec::new())?;
                return Ok(CommandResult::Repeated);
            }
            (Some(Gathered::Stale), _) => return Err(stale()),
            _ => {}
        }
        core.game.refuel(false);
        let events = core.game.decide(seat, command).map_err(|refusal| {
            self.live.end_if_failed(core);
            refused(refusal)
        })?;
        match (self.live.info.mode, &mut core.ticks) {
            (_, Some(_)) if core.seq >= TICK_EVENTS_MAX => return Err(enough(TICK_EVENTS_MAX)),
            (_, Some(ticks)) => ticks.gather(seat, id, events)?,
            (Mode::Relay, _) => self.pass_on(core, seat, id, &events)?,
            _ => self.apply_durably(core, seat, id, events)?,
        }
        Ok(CommandResult::Applied)
    }

    /// `seq` is the number of the last event that followed from the command.
    fn ack(&self, core: &mut Core, id: u64, seq: u64) {
        core.reply(&self.outbox, &ServerMessage::Ack { id, seq });
    }

    /// The events are in the log before anyone is told.
    fn apply_durably(
        &self,
        core: &mut Core,
        seat: Seat,
        id: u64,
        events: Vec<Box<RawValue>>,
    ) -> Result<(), Problem> {
        if core.seq >= EVENTS_MAX {
            return Err(enough(EVENTS_MAX));
        }
        let mut change = self.live.begin(core).map_err(|_| overloaded())?;
        let at = change.additions.at;
        for event in events {
            core.happen_in_game(seat, &event);
            change.additions.events.push(EventRecord {
                seq: core.seq,
                at,
                seat: Some(seat),
                command_id: Some(id),
                user: None,
                display_name: None,
                structural: false,
                event: Box::<str>::from(event).into_string(),
            });
        }
        if let Some(outcome) = core.game.outcome() {
            core.end(&mut change.additions, outcome, Some(id), self.live.clock.now());
        }
        let seq = core.seq;
        if let Some(occupant) = core.occupant(seat) {
            occupant.remember(id, seq, ACKS_MAX);
        }
        self.ack(core, id, seq);
        core.tell_end();
        self.live.send(core, change);
        Ok(())
    }

    /// A `relay` game's messages go out at once and are not stored.
    fn pass_on(
        &self,
        core: &mut Core,
        seat: Seat,
        id: u64,
        events: &[Box<RawValue>],
    ) -> Result<(), Problem> {
        let reserved = core.reserved > core.seq || self.live.save_relay(core, RELAY_RESERVE);
        if !reserved || core.is_clogged() {
            return Err(overloaded());
        }
        for event in events {
            core.happen_in_game(seat, event);
        }
        core.dirty |= core.game.snapshot_changed();
        let seq = core.seq;
        if let Some(occupant) = core.occupant(seat) {
            occupant.remember(id, seq, RELAY_ACKS_MAX);
        }
        self.ack(core, id, seq);
        Ok(())
    }

    /// A line for everyone.
    pub fn chat(&self, text: &str) {
        let mut core = self.live.lock_any();
        if core.is_clogged() || !self.live.cluster.holds_lease() {
            return self.outbox.close(Close::TRY_LATER);
        }
        let own = |socket: &&Socket| Arc::ptr_eq(&socket.outbox, &self.outbox);
        // The seat of now: it may have been given up since.
        let Some(socket) = core.sockets.iter().find(own) else { return };
        let (seat, user, at) = (socket.seat(), self.user, Timestamp::now());
        let frame = Frame::message(&ServerMessage::Chat { seat, user, text, at });
        core.broadcast(crate::games::Audience::Everyone, frame);
    }

    /// Something for this socket alone that tells nothing of the match: it waits for no commit.
    pub fn reply(&self, message: &ServerMessage<'_>) {
        self.outbox.push(&Frame::message(message));
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(r#match = %self.live.id, "a socket's task has failed");
        }
        let tell = self.live.cluster.holds_lease();
        self.live.lock_any().dismiss(&self.outbox, tell, self.live.clock.now());
    }
}

/// The status of what can't be done just now.
const OVERLOADED: u16 = 503;

/// The problem of a refused message: `word` is one of those that `docs/protocol.md` lists.
pub fn problem(word: &str, detail: &str) -> Problem {
    let (title, status) = match word {
        "not-your-turn" => ("It is not your turn", 409),
        "illegal-move" => ("The rules forbid this move", 409),
        "match-not-running" => ("The match is not running", 409),
        "not-seated" => ("You have no seat", 403),
        "rate-limited" => ("Too many messages", 429),
        "overloaded" => ("The server is busy", OVERLOADED),
        _ => ("This is not a command", 400),
    };
    Problem::new(word, title, status, Some(detail.to_owned()))
}

fn stale() -> Problem {
    problem("bad-command", "ids rise: this one is below the latest applied")
}

fn enough(events: u64) -> Problem {
    problem("illegal-move", &format!("the match has {events} events: that is enough"))
}

fn overloaded() -> Problem {
    problem("overloaded", "too many moves wait to be stored: send it again")
}

fn refused(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::NotYourTurn => problem("not-your-turn", "another seat is to move"),
        Refusal::IllegalMove(detail) => problem("illegal-move", &detail),
        Refusal::BadCommand(detail) => problem("bad-command", &detail),
        Refusal::Failed => {
            problem("match-not-running", "the game's own rules have failed: the match is over")
        }
    }
}
