//! The inside of a match: its state, and the order in which everybody is told.
//!
//! All of it stands under the lock of a [`super::live::Match`], which decides what happens; here
//! it is carried out. Changes take effect at once, but nobody is told before they are committed,
//! except for what players send in `relay` and [`super::ticks`] games: what goes out while such a
//! commit is under way waits in `pending`, in order ([`Core::emit`]). Refusals and welcomes wait
//! there too, since they tell of the state.

use std::collections::VecDeque;
use std::sync::Arc;

use fastwebsockets::OpCode;
use serde_json::value::RawValue;
use tokio::sync::oneshot;

use super::event::{NOBODY, Structural, wire_event};
use super::outbox::{Close, Outbox};
use super::snapshot;
use super::ticks::Ticks;
use crate::games::{Audience, Game, GameInfo, Mode, Outcome, Seat, Viewer};
use crate::ids::{SessionId, Timestamp, UserId};
use crate::protocol::{Frame, Player, ServerMessage};
use crate::ratings::RatingChange;
use crate::store::{EventRecord, MatchRecord, MatchState, Snapshot, Visibility};
use crate::telemetry::figures::{MATCHES_ENDED, MATCHES_RATED, PLUGINS_FAILED};

/// Events that a match keeps in memory for sockets that come back; older ones come from the log.
const HISTORY_EVENTS_MAX: usize = 128;
/// The same in bytes.
const HISTORY_BYTES_MAX: usize = 256 * 1024;
/// Commands of a seat, in a game that is not `relay`, whose repetition is answered by the first one's
/// `ack`; a client can't have more of them unanswered ([`PENDING_MAX`]).
pub(super) const ACKS_MAX: usize = 1024;
/// Spectators' sockets that one match serves; players always get in.
const SPECTATORS_MAX: usize = 1024;
/// Sockets with which one session may watch a match.
const WATCHING_MAX: usize = 4;
/// Outputs that may wait for a commit; what can be refused is refused as `overloaded` then.
const PENDING_MAX: usize = 1024;
/// Silence after which a client is pinged, in seconds; then every second until it is heard.
const PING_AFTER_SECONDS: u32 = 20;
/// Silence after which its socket is closed, in seconds.
const SILENT_SECONDS_MAX: u32 = 60;

/// A match's state; see the module.
pub(super) struct Core {
    /// As it is in the store, but for players, `seq` and snapshot: see the fields below.
    pub record: MatchRecord,
    pub game: Box<dyn Game>,
    pub seats: Vec<Option<Occupant>>,
    pub sockets: Vec<Socket>,
    /// The last event's number.
    pub seq: u64,
    /// In `relay`: the number up to which the store knows that they are used.
    pub reserved: u64,
    /// In `relay`: whether the shared state changed since it was written.
    pub dirty: bool,
    /// What a match of a `ticks` game has beside.
    pub ticks: Option<Box<Ticks>>,
    /// Changes handed to the log since the match was loaded.
    pub sent: u64,
    /// The latest of them that is to be committed before anybody is told more.
    held_until: u64,
    /// Changes that the log has committed.
    pub written: u64,
    /// What goes out once `written` has reached the number beside it.
    pub pending: VecDeque<(u64, Output)>,
    /// Outputs so far: a socket gets those after its own welcome.
    outputs: u64,
    pub history: History,
    /// When it ended, or was last touched without a socket, in seconds of the clock.
    pub idle_since: u32,
    /// When quick play last seated somebody here, in seconds of the clock.
    pub expected_at: Option<u32>,
    /// [`MatchRecord::seq`] as the last change that was sent leaves it.
    pub stored_seq: u64,
    /// The last event of the latest snapshot of the log.
    pub snapshot_seq: u64,
    /// No longer the match: whoever holds it must load it anew.
    pub retired: bool,
    /// The log has refused a change: nothing of this life is written any more.
    pub refused: bool,
}

/// Who has a seat.
pub(super) struct Occupant {
    pub user: Option<UserId>,
    pub display_name: String,
    /// The number of the event by which the seat was taken: what was for the seat before was for
    /// somebody else.
    pub joined_seq: u64,
    /// Resigned or timed out, and still in the list of players.
    pub gone: bool,
    /// Since when no socket holds the seat, in seconds of the clock.
    pub absent_since: Option<u32>,
    /// Applied commands: the client's id, and the number of the last event it made; both rise.
    pub applied: VecDeque<(u64, u64)>,
}

/// A socket that is told.
pub(super) struct Socket {
    pub outbox: Arc<Outbox>,
    pub viewer: Viewer,
    pub session: SessionId,
    /// Gets the outputs numbered above.
    after_output: u64,
    /// Of a `ticks` game: the step of the latest view that went into its outbox.
    pub shown: Option<u64>,
}

/// The latest events, encoded, for sockets that come back.
#[derive(Default)]
pub(super) struct History {
    events: VecDeque<(u64, Audience, Arc<Frame>)>,
    bytes: usize,
    /// It holds all events with numbers above.
    pub after: u64,
}

/// Something that somebody is to be told, or that is to be done, in order.
pub(super) enum Output {
    Broadcast {
        number: u64,
        audience: Audience,
        frame: Arc<Frame>,
    },
    To {
        outbox: Arc<Outbox>,
        frame: Arc<Frame>,
    },
    Welcome {
        outbox: Arc<Outbox>,
        frames: Vec<Arc<Frame>>,
        ended: bool,
    },
    /// What the end has made of ratings is known once it is committed.
    Ended {
        number: u64,
    },
    /// What all see of a `ticks` game when its turn has come.
    Views {
        number: u64,
    },
    CloseAll(Close),
    Done(oneshot::Sender<()>),
}

/// What was found of a command's id.
pub(super) enum Earlier {
    /// Not seen: it may be applied.
    New,
    /// It was applied; its last event's number.
    Applied(u64),
    /// Below the latest applied one, and not (or no longer known to be) applied.
    Stale,
}

/// What a change adds to the log.
#[derive(Default)]
pub(super) struct Additions {
    pub events: Vec<EventRecord>,
    pub seats: Vec<(Seat, Option<UserId>)>,
    pub at: Timestamp,
}

impl Occupant {
    pub fn new(user: Option<UserId>, display_name: String, joined_seq: u64, now: u32) -> Self {
        let (absent_since, applied) = (Some(now), VecDeque::new());
        Self { user, display_name, joined_seq, gone: false, absent_since, applied }
    }

    pub fn earlier(&self, id: u64) -> Earlier {
        if self.applied.back().is_none_or(|(last, _)| *last < id) {
            return Earlier::New;
        }
        match self.applied.binary_search_by_key(&id, |(applied, _)| *applied) {
            Ok(place) => Earlier::Applied(self.applied[place].1),
            Err(_) => Earlier::Stale,
        }
    }

    /// Notes that a command was applied, and forgets the oldest of more than `keep`.
    pub fn remember(&mut self, id: u64, seq: u64, keep: usize) {
        match self.applied.back_mut() {
            Some((last, last_seq)) if *last == id => *last_seq = seq,
            _ => self.applied.push_back((id, seq)),
        }
        if self.applied.len() > keep {
            self.applied.pop_front();
        }
    }
}

impl Socket {
    pub fn seat(&self) -> Option<Seat> {
        match self.viewer {
            Viewer::Seat(seat) => Some(seat),
            Viewer::Spectator => None,
        }
    }

    /// Whether an output is for it: its welcome came before.
    pub fn is_told(&self, output: u64) -> bool {
        self.after_output < output
    }
}

impl History {
    fn push(&mut self, seq: u64, audience: Audience, frame: &Arc<Frame>) {
        self.bytes += frame.bytes(crate::protocol::Codec::Json).len();
        self.events.push_back((seq, audience, Arc::clone(frame)));
        while self.events.len() > HISTORY_EVENTS_MAX || self.bytes > HISTORY_BYTES_MAX {
            let Some((seq, _, frame)) = self.events.pop_front() else { break };
            self.bytes -= frame.bytes(crate::protocol::Codec::Json).len();
            self.after = seq;
        }
    }
}

impl Core {
    pub fn new(record: MatchRecord, game: Box<dyn Game>, mode: Mode, now: u32) -> Self {
        let seats = (0..record.seats).map(|_| None).collect();
        Self {
            record,
            game,
            seats,
            sockets: Vec::new(),
            seq: 0,
            reserved: 0,
            dirty: false,
            ticks: (mode == Mode::Ticks).then(Ticks::new),
            sent: 0,
            held_until: 0,
            written: 0,
            pending: VecDeque::new(),
            outputs: 0,
            history: History::default(),
            idle_since: now,
            expected_at: None,
            stored_seq: 0,
            snapshot_seq: 0,
            retired: false,
            refused: false,
        }
    }

    /// A match from its record, a snapshot of its log, and its log after that. An error says what of
    /// them makes no sense.
    pub fn rebuild(
        mut record: MatchRecord,
        log_snapshot: Option<&Snapshot>,
        events: &[EventRecord],
        mode: Mode,
        game: Box<dyn Game>,
        now: u32,
    ) -> Result<Self, String> {
        let (seq, state, relay) = (record.seq, record.state, mode == Mode::Relay);
        (record.state, record.outcome) = (MatchState::Open, None);
        let snapshot = record.snapshot.take();
        let mut core = Self::new(record, game, mode, now);
        if let Some(snapshot) = log_snapshot {
            snapshot::restore(&mut core, snapshot, now)?;
        }
        for event in events {
            core.replay(event, mode, now)
                .map_err(|error| format!("event {}: {error}", event.seq))?;
        }
        match snapshot {
            Some(tick) if core.ticks.is_some() => {
                core.rebuilt_at(tick.parse().map_err(|_| format!("{tick:?} is no step"))?);
            }
            Some(state) => {
                let state = RawValue::from_string(state).map_err(|error| error.to_string())?;
                core.game.restore(&state)?;
            }
            None => {}
        }
        // They were logged when this was new.
        core.game.take_lines();
        core.game.refuel(true);
        // A relay's messages are numbered, but not in the log.
        if (relay && core.seq > seq) || (!relay && core.seq != seq) || core.record.state != state {
            return Err(format!("the log ends at {}, the match at {seq}", core.seq));
        }
        (core.seq, core.reserved, core.stored_seq) = (seq, seq, seq);
        core.history.after = seq;
        Ok(core)
    }

    pub fn seat_of(&self, user: UserId) -> Option<Seat> {
        let place = self.seats.iter().flatten_seats().find(|(_, o)| o.user == Some(user));
        place.map(|(seat, _)| seat)
    }

    pub fn occupant(&mut self, seat: Seat) -> Option<&mut Occupant> {
        self.seats.get_mut(seat.index())?.as_mut()
    }

    pub fn players(&self) -> Vec<Player> {
        self.seats
            .iter()
            .flatten_seats()
            .map(|(seat, occupant)| Player {
                seat,
                user: occupant.user,
                display_name: occupant.display_name.clone(),
                connected: occupant.absent_since.is_none(),
            })
            .collect()
    }

    /// Takes an event of the log, when the match is rebuilt.
    pub fn replay(&mut self, record: &EventRecord, mode: Mode, now: u32) -> Result<(), String> {
        if mode != Mode::Relay && record.seq != self.seq + 1 {
            return Err(format!("follows {} in the log", self.seq));
        }
        self.seq = record.seq;
        self.game.refuel(true);
        if record.structural {
            let event = serde_json::from_str(&record.event).map_err(|error| error.to_string())?;
            self.replay_structural(&event, record, mode, now);
            return Ok(());
        }
        if self.ticks.is_some() {
            return self.replay_step(record).map_err(|error| error.to_string());
        }
        let event = serde_json::from_str(&record.event).map_err(|error| error.to_string())?;
        self.game.apply(record.seat, event);
        let occupant = record.seat.and_then(|seat| self.occupant(seat));
        if let Some((occupant, id)) = occupant.zip(record.command_id) {
            occupant.remember(id, record.seq, ACKS_MAX);
        }
        Ok(())
    }

    fn replay_structural(
        &mut self,
        event: &Structural,
        record: &EventRecord,
        mode: Mode,
        now: u32,
    ) {
        match event {
            Structural::Joined { seat, .. } => {
                let name = record.display_name.clone().unwrap_or_else(|| NOBODY.into());
                if let Some(place) = self.seats.get_mut(seat.index()) {
                    *place = Some(Occupant::new(record.user, name, record.seq, now));
                }
            }
            Structural::Left { seat, reason, tick } => {
                self.advance_to(tick.unwrap_or_default());
                self.vacate(*seat, self.record.state == MatchState::Open || mode == Mode::Relay);
                if self.record.state == MatchState::Running {
                    self.game.leave(*seat, *reason);
                }
            }
            Structural::Started { .. } => self.record.state = MatchState::Running,
            Structural::Ended(outcome) => {
                self.record.state = MatchState::Ended;
                self.record.outcome = Some(outcome.clone());
                // The command that ended the match is acknowledged by the end's number.
                let last = record.command_id.map(|id| (id, record.seq - 1));
                let mut occupants = self.seats.iter_mut().flatten();
                let author = occupants.find_map(|occupant| {
                    occupant.applied.back_mut().filter(|applied| Some(**applied) == last)
                });
                if let Some((_, seq)) = author {
                    *seq = record.seq;
                }
            }
        }
    }

    /// A player is gone: the seat is `free` for others, or stays in the list.
    pub fn vacate(&mut self, seat: Seat, free: bool) {
        if free {
            if let Some(place) = self.seats.get_mut(seat.index()) {
                *place = None;
            }
            let private = self.record.visibility == Visibility::Private;
            for socket in &mut self.sockets {
                if socket.viewer == Viewer::Seat(seat) {
                    socket.viewer = Viewer::Spectator;
                    if private {
                        socket.outbox.close(Close::LEFT);
                    }
                }
            }
        } else if let Some(occupant) = self.occupant(seat) {
            occupant.gone = true;
        }
    }

    /// One of the engine's own events happens.
    pub fn happen(&mut self, additions: &mut Additions, event: &Structural) {
        self.seq += 1;
        self.reserved = self.reserved.max(self.seq);
        additions.events.push(event.record(self.seq, additions.at));
        self.announce(event.seat(), &event.to_wire(), Audience::Everyone);
    }

    /// An event of the game happens: the state changes and those who may know are told.
    pub fn happen_in_game(&mut self, seat: Seat, event: &RawValue) {
        self.seq += 1;
        self.game.apply(Some(seat), event);
        self.announce(Some(seat), event, self.game.audience(Some(seat), event));
    }

    pub fn announce(&mut self, seat: Option<Seat>, event: &RawValue, audience: Audience) {
        let frame = Frame::message(&ServerMessage::Event { seq: self.seq, seat, event });
        self.history.push(self.seq, audience, &frame);
        self.broadcast(audience, frame);
    }

    /// The match is over, by a command or without one; [`Self::tell_end`] is to follow.
    pub fn end(
        &mut self,
        additions: &mut Additions,
        outcome: Outcome,
        command_id: Option<u64>,
        now: u32,
    ) {
        MATCHES_ENDED.increment();
        if let Some(why) = self.game.failure() {
            PLUGINS_FAILED.increment();
            let (id, game, version) =
                (self.record.id, &self.record.game, &self.record.game_version);
            tracing::error!(r#match = %id, game, version, why, "its rules have failed: it is over");
        }
        self.record.state = MatchState::Ended;
        self.idle_since = now;
        self.happen(additions, &Structural::Ended(outcome.clone()));
        if let Some(event) = additions.events.last_mut() {
            event.command_id = command_id;
        }
        self.record.outcome = Some(outcome);
        // No number is used after this one: what was set apart for a `relay` is not needed.
        self.reserved = self.seq;
    }

    /// Tells everyone how it ended, if it has.
    pub fn tell_end(&mut self) {
        if self.record.outcome.is_some() {
            self.outputs += 1;
            self.emit(Output::Ended { number: self.outputs });
        }
    }

    fn ended_frame(&self) -> Option<Arc<Frame>> {
        let outcome = self.record.outcome.as_ref()?;
        let ratings = self.record.ratings.as_deref();
        Some(Frame::message(&ServerMessage::Ended { seq: self.seq, outcome, ratings }))
    }

    /// Tells `audience`, as it is connected when the output's turn has come.
    pub fn broadcast(&mut self, audience: Audience, frame: Arc<Frame>) {
        let number = self.next_output();
        self.emit(Output::Broadcast { number, audience, frame });
    }

    /// The number of an output, by which sockets know whether it is for them.
    pub fn next_output(&mut self) -> u64 {
        self.outputs += 1;
        self.outputs
    }

    /// Tells one socket.
    pub fn reply(&mut self, outbox: &Arc<Outbox>, message: &ServerMessage<'_>) {
        self.emit(Output::To { outbox: Arc::clone(outbox), frame: Frame::message(message) });
    }

    /// Comes once all changes up to now are committed.
    pub fn when_committed(&mut self) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        self.hold();
        self.emit(Output::Done(sender));
        receiver
    }

    /// Whether so much waits for a commit that nothing is to be added that can be refused.
    pub fn is_clogged(&self) -> bool {
        self.pending.len() >= PENDING_MAX
    }

    /// Nobody is told more before all changes up to now are committed.
    pub fn hold(&mut self) {
        self.held_until = self.sent;
    }

    /// Whether something is to be committed before anybody is told more.
    pub fn is_held(&self) -> bool {
        !self.pending.is_empty() || self.written < self.held_until
    }

    /// Lets an output go in its turn: at once if nothing is to be committed before. A socket that
    /// asks on and on while the store is away is closed.
    pub fn emit(&mut self, output: Output) {
        if !self.is_held() {
            self.deliver(output);
        } else if let (Output::To { outbox, .. }, true) = (&output, self.is_clogged()) {
            outbox.close(Close::TRY_LATER);
        } else {
            self.pending.push_back((self.held_until, output));
        }
    }

    /// The log has committed the changes up to `number`, and with them what they made of ratings.
    pub fn committed(&mut self, number: u64, ratings: Option<&[RatingChange]>) {
        if let Some(ratings) = ratings
            && self.record.ratings.is_none()
        {
            MATCHES_RATED.increment();
            self.record.ratings = Some(ratings.to_vec());
        }
        self.written = self.written.max(number);
        while self.pending.front().is_some_and(|(after, _)| *after <= self.written) {
            if let Some((_, output)) = self.pending.pop_front() {
                self.deliver(output);
            }
        }
    }

    fn deliver(&mut self, output: Output) {
        match output {
            Output::Broadcast { number, audience, frame } => {
                self.push_to_all(number, audience, &frame);
            }
            Output::Ended { number } => {
                if let Some(frame) = self.ended_frame() {
                    self.push_to_all(number, Audience::Everyone, &frame);
                }
            }
            Output::To { outbox, frame } => outbox.push(&frame),
            Output::Welcome { outbox, mut frames, ended } => {
                frames.extend(self.ended_frame().filter(|_| ended));
                outbox.push_all(frames);
            }
            Output::Views { number } => {
                // The state is that of the last of them, and to be told when all of it is committed.
                let is_last =
                    !self.pending.iter().any(|(_, later)| matches!(later, Output::Views { .. }));
                if is_last {
                    self.tell_views(number);
                }
            }
            Output::CloseAll(close) => self.close_all(close),
            Output::Done(sender) => drop(sender.send(())),
        }
    }

    fn push_to_all(&self, number: u64, audience: Audience, frame: &Arc<Frame>) {
        for socket in &self.sockets {
            if socket.after_output < number && audience.includes(socket.viewer) {
                socket.outbox.push(frame);
            }
        }
    }

    /// Closes all sockets now, whatever waits.
    pub fn close_all(&self, close: Close) {
        for socket in &self.sockets {
            socket.outbox.close(close);
        }
    }

    /// Lets a socket in: its welcome, then the events after `after`, `older` ones first.
    pub fn admit(
        &mut self,
        info: &GameInfo,
        outbox: &Arc<Outbox>,
        (viewer, session): (Viewer, SessionId),
        after: Option<u64>,
        older: &[EventRecord],
    ) {
        let seat = match viewer {
            Viewer::Seat(seat) => Some(seat),
            Viewer::Spectator => None,
        };
        if let Some(seat) = seat {
            self.seat_connected(seat);
        }
        self.game.refuel(false);
        let applied = seat.and_then(|seat| self.occupant(seat)).map(|o| o.applied.back().copied());
        let welcome = Frame::message(&ServerMessage::Welcome {
            r#match: self.record.id,
            game: &info.name,
            mode: info.mode,
            seat,
            state: self.record.state,
            players: &self.players(),
            seq: self.seq,
            view: &self.game.view(viewer),
            tick: self.ticks.as_ref().map(|ticks| ticks.tick),
            resumed: after.is_some(),
            last_id: applied.map(|last| last.map_or(0, |(id, _)| id)),
        });
        let missed = after.map(|after| self.missed(viewer, after, older)).unwrap_or_default();
        let frames = std::iter::once(welcome).chain(missed).collect();
        let ended = self.record.outcome.is_some();
        self.emit(Output::Welcome { outbox: Arc::clone(outbox), frames, ended });
        let (outbox, after_output) = (Arc::clone(outbox), self.outputs);
        self.sockets.push(Socket { outbox, viewer, session, after_output, shown: None });
    }

    /// As whom somebody who is `viewer` now sees the event numbered `seq`.
    pub fn viewer_at(&self, viewer: Viewer, seq: u64) -> Viewer {
        let Viewer::Seat(seat) = viewer else { return viewer };
        let occupant = self.seats.get(seat.index()).and_then(Option::as_ref);
        if occupant.is_some_and(|occupant| seq >= occupant.joined_seq) {
            viewer
        } else {
            Viewer::Spectator
        }
    }

    /// Who may be told of an event of the log.
    pub fn audience(&self, record: &EventRecord, event: &RawValue) -> Audience {
        if record.structural || self.ticks.is_some() {
            return Audience::Everyone;
        }
        self.game.audience(record.seat, event)
    }

    /// The events after `after` that `viewer` may see.
    fn missed(&self, viewer: Viewer, after: u64, older: &[EventRecord]) -> Vec<Arc<Frame>> {
        let older = older.iter().filter(|record| record.seq <= self.history.after);
        let older = older.filter_map(|record| {
            let event = wire_event(record).ok()?;
            let audience = self.audience(record, &event);
            let (seq, seat) = (record.seq, record.seat);
            let frame = || Frame::message(&ServerMessage::Event { seq, seat, event: &event });
            audience.includes(self.viewer_at(viewer, seq)).then(frame)
        });
        let recent = self.history.events.iter().filter(|(seq, audience, _)| {
            *seq > after && audience.includes(self.viewer_at(viewer, *seq))
        });
        older.chain(recent.map(|(_, _, frame)| Arc::clone(frame))).collect()
    }

    /// A socket takes a seat: an older one of the same player makes room, or others are told.
    fn seat_connected(&mut self, seat: Seat) {
        let older = self.sockets.iter().position(|socket| socket.viewer == Viewer::Seat(seat));
        if let Some(occupant) = self.occupant(seat) {
            occupant.absent_since = None;
        }
        match older {
            Some(place) => self.sockets.swap_remove(place).outbox.close(Close::REPLACED),
            None => self.tell_presence(seat, true),
        }
    }

    /// A socket went; others are told if this node may.
    pub fn dismiss(&mut self, outbox: &Arc<Outbox>, tell: bool, now: u32) {
        let place = self.sockets.iter().position(|socket| Arc::ptr_eq(&socket.outbox, outbox));
        let Some(place) = place else { return };
        let socket = self.sockets.swap_remove(place);
        self.idle_since = self.idle_since.max(now);
        if let Some(seat) = socket.seat() {
            if let Some(occupant) = self.occupant(seat) {
                occupant.absent_since = Some(now);
            }
            if tell {
                self.tell_presence(seat, false);
            }
        }
    }

    fn tell_presence(&mut self, seat: Seat, connected: bool) {
        let presence = Frame::message(&ServerMessage::Presence { seat, connected });
        self.broadcast(Audience::Everyone, presence);
    }

    /// Whether a session may watch with one more socket.
    pub fn has_room_to_watch(&self, session: SessionId) -> bool {
        let watching = || self.sockets.iter().filter(|socket| socket.seat().is_none());
        watching().count() < SPECTATORS_MAX
            && watching().filter(|socket| socket.session == session).count() < WATCHING_MAX
    }

    /// Whether a player is connected: somebody who waits for the others.
    pub fn has_player(&self) -> bool {
        let plays = |seat: Seat| {
            let occupant = self.seats.get(seat.index()).and_then(Option::as_ref);
            occupant.is_some_and(|occupant| !occupant.gone)
        };
        self.sockets.iter().filter_map(Socket::seat).any(plays)
    }

    /// The seat whose player has been away for longer than the grace period, if any. In a match
    /// that is not `relay`, the time counts while another player waits.
    pub fn overdue(&self, grace_seconds: u32, now: u32, mode: Mode) -> Option<Seat> {
        let waited_for = mode == Mode::Relay || self.has_player();
        if !waited_for || self.record.state == MatchState::Ended {
            return None;
        }
        let mut seats = self.seats.iter().flatten_seats();
        let overdue = seats.find(|(_, occupant)| {
            let absent = occupant.absent_since.map(|since| now.saturating_sub(since));
            !occupant.gone && absent.is_some_and(|seconds| seconds >= grace_seconds)
        });
        overdue.map(|(seat, _)| seat)
    }

    /// Forgets the name of a user whose account is gone.
    pub fn forget_user(&mut self, user: UserId) {
        for occupant in self.seats.iter_mut().flatten().filter(|o| o.user == Some(user)) {
            occupant.user = None;
            occupant.display_name = NOBODY.into();
        }
        let id = user.to_string();
        if self.history.events.iter().any(|(_, _, frame)| frame.mentions(&id)) {
            // What is older than the present comes from the log, which knows no names.
            self.history = History { after: self.seq, ..History::default() };
        }
    }

    /// Everybody's grace begins anew.
    pub fn restart_grace(&mut self, now: u32) {
        for occupant in self.seats.iter_mut().flatten() {
            occupant.absent_since = occupant.absent_since.map(|_| now);
        }
    }

    /// Pings clients that were not heard for a while, and gives up those that do not answer.
    pub fn ping_the_silent(&self, now: u32) {
        let mut ping = None;
        for socket in &self.sockets {
            match now.saturating_sub(socket.outbox.heard()) {
                SILENT_SECONDS_MAX.. => socket.outbox.close(Close::SILENT),
                PING_AFTER_SECONDS.. => {
                    let frame = ping.get_or_insert_with(|| Frame::control(OpCode::Ping, &[]));
                    socket.outbox.push(frame);
                }
                _ => {}
            }
        }
    }
}

/// Walks over the taken seats.
trait FlattenSeats<'a> {
    fn flatten_seats(self) -> impl Iterator<Item = (Seat, &'a Occupant)>;
}

impl<'a, I: Iterator<Item = &'a Option<Occupant>>> FlattenSeats<'a> for I {
    fn flatten_seats(self) -> impl Iterator<Item = (Seat, &'a Occupant)> {
        (0..).map(Seat).zip(self).filter_map(|(seat, place)| Some((seat, place.as_ref()?)))
    }
}
