//! A match of a `ticks` game: the server's clock moves it.
//!
//! Commands gather between two steps. A step applies them by seat, and in the order in which each
//! seat sent them; then the game moves on, and all are told at once. A step with commands is an event
//! of the match. The log gets events and the number of the latest step behind their telling, in one
//! change each half of the time that a crash may lose ([`super::ticker::Ticker::loss`]); a match whose
//! changes are not committed for longer than that stands still, so that never more is lost. Seats
//! that are taken and given up, the start and the end are committed before anyone is told, as in other
//! games, and the match stands still for so long.
//!
//! Steps that had no commands are not in the log: they follow from the game's rules. While no player
//! is connected a match stands still, too.

use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use super::core::{ACKS_MAX, Core, Output};
use super::live::{Match, problem};
use super::views::{News, Shown};
use crate::games::{Audience, Outcome, Seat, Viewer};
use crate::ids::Timestamp;
use crate::protocol::{Problem, ServerMessage};
use crate::store::{EventRecord, MatchState};

/// Commands of one seat that one step takes; more are refused as `rate-limited`.
const INPUTS_MAX: usize = 16;
/// How often the log is told in the time that a crash may lose: a commit takes some of it.
const SAVES_IN_LOSS: u32 = 2;
/// Events that one match may have: at 60 steps a second with commands in each, more than four hours.
pub(super) const TICK_EVENTS_MAX: u64 = 1_000_000;

/// What a match of a `ticks` game has beside what all have.
pub(super) struct Ticks {
    /// Steps so far.
    pub tick: u64,
    /// Commands that the next step takes.
    inputs: Vec<Input>,
    /// Events that wait to be sent to the log.
    unsaved: Vec<EventRecord>,
    /// The step up to which the log was told.
    pub saved: u64,
    /// The change that was sent last behind its telling, and when.
    saving: Option<(u64, Instant)>,
    /// When that was, or the clock was started.
    saved_at: Instant,
    /// What had happened until then is committed.
    safe_at: Instant,
    /// The step of the latest snapshot of the log.
    pub snapshot_tick: u64,
    /// Whether the ticker has it.
    pub ticking: bool,
    shown: Vec<Shown>,
}

/// What a command comes to; `event` is `None` for one that was sent again before its step.
struct Input {
    seat: Seat,
    id: u64,
    event: Option<Box<RawValue>>,
}

/// A step's event.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StepEvent<'a> {
    tick: u64,
    #[serde(borrow)]
    inputs: Vec<StepInput<'a>>,
}

/// What one command came to in it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StepInput<'a> {
    seat: Seat,
    id: u64,
    #[serde(borrow)]
    input: &'a RawValue,
}

/// What became of a wish to step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It goes on.
    Done,
    /// Somebody else works on the match: other matches need not wait for that.
    Busy,
    /// The match stands still for the store, and tries again.
    Stood,
    /// Its clock stops until somebody starts it again.
    Stopped,
}

/// What the next step does with a command's id.
pub(super) enum Gathered {
    /// Nothing: it has not seen it.
    New,
    /// It takes it.
    Waits,
    /// It takes a later one of this seat, and not this one.
    Stale,
}

impl Ticks {
    pub fn new() -> Box<Self> {
        let now = Instant::now();
        Box::new(Self {
            tick: 0,
            inputs: Vec::new(),
            unsaved: Vec::new(),
            saved: 0,
            saving: None,
            saved_at: now,
            safe_at: now,
            snapshot_tick: 0,
            ticking: false,
            shown: Vec::new(),
        })
    }

    pub fn is_saved(&self) -> bool {
        self.saved == self.tick && self.unsaved.is_empty()
    }

    /// The events that the next change takes along, before its own.
    pub fn take_unsaved(&mut self) -> Vec<EventRecord> {
        self.saved = self.tick;
        std::mem::take(&mut self.unsaved)
    }

    /// What the next step does with a command of this seat and id.
    pub fn gathered(&self, seat: Seat, id: u64) -> Gathered {
        let mut ids = self.inputs.iter().filter(|input| input.seat == seat).map(|input| input.id);
        match ids.clone().max() {
            Some(last) if id <= last && ids.any(|waits| waits == id) => Gathered::Waits,
            Some(last) if id <= last => Gathered::Stale,
            _ => Gathered::New,
        }
    }

    /// The next step takes these, or, if there are none, acknowledges the command once more.
    pub fn gather(
        &mut self,
        seat: Seat,
        id: u64,
        events: Vec<Box<RawValue>>,
    ) -> Result<(), Problem> {
        let waiting = self.inputs.iter().filter(|input| input.seat == seat).count();
        if waiting + events.len().max(1) > INPUTS_MAX {
            let detail = "more commands than one step takes: send it again after the next";
            return Err(problem("rate-limited", detail));
        }
        if events.is_empty() {
            self.inputs.push(Input { seat, id, event: None });
        }
        let events = events.into_iter().map(Some);
        self.inputs.extend(events.map(|event| Input { seat, id, event }));
        Ok(())
    }

    /// Takes out the commands that no step will take: those of a seat, or all.
    fn drop_inputs(&mut self, seat: Option<Seat>) -> Vec<Input> {
        self.inputs.extract_if(.., |input| seat.is_none_or(|seat| seat == input.seat)).collect()
    }
}

impl Core {
    /// Whether the clock moves it: the match runs, and somebody plays.
    fn moves(&self) -> bool {
        self.record.state == MatchState::Running && self.has_player() && !self.retired
    }

    /// Goes on to a step of the past, without commands.
    pub fn advance_to(&mut self, tick: u64) {
        let Some(ticks) = &mut self.ticks else { return };
        while ticks.tick < tick {
            self.game.refuel(true);
            self.game.tick();
            ticks.tick += 1;
        }
    }

    /// The log and this step are all there is of it.
    pub fn rebuilt_at(&mut self, tick: u64) {
        self.advance_to(tick);
        if let Some(ticks) = &mut self.ticks {
            ticks.saved = ticks.tick;
        }
    }

    /// Takes a step's event of the log.
    pub fn replay_step(&mut self, record: &EventRecord) -> serde_json::Result<()> {
        let StepEvent { tick, inputs } = serde_json::from_str(&record.event)?;
        self.advance_to(tick - tick.min(1));
        for StepInput { seat, id, input } in inputs {
            self.game.apply(Some(seat), input);
            if let Some(occupant) = self.occupant(seat) {
                occupant.remember(id, record.seq, ACKS_MAX);
            }
        }
        self.advance_to(tick);
        Ok(())
    }

    /// Moves on by a step and tells of it at once: nothing is held back when this is called.
    pub fn step(&mut self) {
        let Some(ticks) = &mut self.ticks else { return };
        self.game.refuel(false);
        let mut inputs = std::mem::take(&mut ticks.inputs);
        ticks.tick += 1;
        let tick = ticks.tick;
        if !inputs.is_empty() {
            inputs.sort_by_key(|input| input.seat);
            self.apply(tick, &inputs);
        }
        self.game.tick();
        self.show();
    }

    /// Applies the commands of a step.
    fn apply(&mut self, tick: u64, inputs: &[Input]) {
        let mut applied = Vec::with_capacity(inputs.len());
        for Input { seat, id, event } in inputs {
            if let Some(input) = event {
                self.game.apply(Some(*seat), input);
                applied.push(StepInput { seat: *seat, id: *id, input });
            }
        }
        let event = to_raw_value(&StepEvent { tick, inputs: applied }).expect("an event is JSON");
        self.seq += 1;
        let seq = self.seq;
        self.announce(None, &event, Audience::Everyone);
        for Input { seat, id, .. } in inputs {
            if let Some(occupant) = self.occupant(*seat) {
                occupant.remember(*id, seq, ACKS_MAX);
            }
            self.answer(*seat, &ServerMessage::Ack { id: *id, seq });
        }
        let record = EventRecord {
            seq,
            at: Timestamp::now(),
            seat: None,
            command_id: None,
            user: None,
            display_name: None,
            structural: false,
            event: Box::<str>::from(event).into_string(),
        };
        if let Some(ticks) = &mut self.ticks {
            ticks.unsaved.push(record);
        }
    }

    /// Tells the socket that holds a seat now, if one does.
    fn answer(&mut self, seat: Seat, message: &ServerMessage<'_>) {
        let socket = self.sockets.iter().find(|socket| socket.viewer == Viewer::Seat(seat));
        if let Some(outbox) = socket.map(|socket| Arc::clone(&socket.outbox)) {
            self.reply(&outbox, message);
        }
    }

    /// Refuses the commands that no step will take: those of a seat, or all.
    pub fn refuse_inputs(&mut self, seat: Option<Seat>) {
        let dropped = self.ticks.as_mut().map(|ticks| ticks.drop_inputs(seat)).unwrap_or_default();
        let problem = problem("match-not-running", "it came too late");
        for Input { seat, id, .. } in dropped {
            self.answer(seat, &ServerMessage::Error { id: Some(id), problem: &problem });
        }
    }

    /// Tells everybody what they see, in its turn.
    pub fn show(&mut self) {
        if self.ticks.is_some() {
            let number = self.next_output();
            self.emit(Output::Views { number });
        }
    }

    /// Tells those who are connected what they see now, if it has changed.
    pub fn tell_views(&mut self, number: u64) {
        let Self { ticks, game, sockets, seq, .. } = self;
        let Some(ticks) = ticks else { return };
        game.refuel(false);
        if game.failure().is_some() {
            return;
        }
        let sees_as = |viewer| if game.has_one_view() { Viewer::Spectator } else { viewer };
        let mut told: Vec<Shown> = Vec::with_capacity(ticks.shown.len());
        for place in 0..sockets.len() {
            let viewer = sees_as(sockets[place].viewer);
            if told.iter().any(|shown| shown.viewer == viewer) {
                continue;
            }
            let view = game.view(viewer);
            if game.failure().is_some() {
                return;
            }
            let before = ticks.shown.iter().position(|shown| shown.viewer == viewer);
            let before = before.map(|place| ticks.shown.swap_remove(place));
            if before.as_ref().is_some_and(|before| before.is(&view)) {
                // Who came meanwhile has it by the welcome.
                told.extend(before);
                continue;
            }
            let news = News::new(*seq, ticks.tick, &view, before.as_ref());
            let sockets = sockets[place..].iter_mut().filter(|s| sees_as(s.viewer) == viewer);
            for socket in sockets.filter(|socket| socket.is_told(number)) {
                let has_before = before.as_ref().is_some_and(|b| socket.shown == Some(b.tick));
                let differences = has_before && socket.outbox.differences;
                socket.outbox.push_view(|waits| {
                    if differences && !waits { news.difference() } else { news.whole() }
                });
                socket.shown = Some(ticks.tick);
            }
            told.push(Shown::new(viewer, ticks.tick, view));
        }
        ticks.shown = told;
    }
}

impl Match {
    /// Lets the clock go on if it is to: the match runs, and somebody plays.
    pub(super) fn start_clock(self: &Arc<Self>, core: &mut Core) {
        let (moves, settled) = (core.moves(), core.sent == core.written);
        let Some(ticks) = core.ticks.as_mut().filter(|ticks| moves && !ticks.ticking) else {
            return;
        };
        ticks.ticking = true;
        if settled && ticks.is_saved() {
            // The time that it stood still is none in which something could get lost.
            (ticks.saved_at, ticks.safe_at) = (Instant::now(), Instant::now());
        }
        self.ticker().add(self);
    }

    /// One step, when its time has come.
    pub(super) fn step(self: &Arc<Self>, now: Instant) -> Step {
        let Some(mut core) = self.try_lock() else { return Step::Busy };
        let core = &mut *core;
        let (moves, held) = (core.moves(), core.is_held());
        let (sent, written) = (core.sent, core.written);
        let Some(ticks) = &mut core.ticks else { return Step::Stopped };
        if !moves {
            ticks.ticking = false;
            core.dirty = !core.retired && !self.put_away(core);
            return Step::Stopped;
        }
        if !self.holds_lease() {
            return Step::Stood;
        }
        if let Some((_, at)) = ticks.saving.take_if(|(number, _)| *number <= written) {
            ticks.safe_at = ticks.safe_at.max(at);
        }
        if sent == written && ticks.is_saved() {
            ticks.safe_at = now;
        }
        let loss = self.ticker().loss;
        let stands = held || now.saturating_duration_since(ticks.safe_at) > loss;
        let unsaved_for = now.saturating_duration_since(ticks.saved_at);
        let save = ticks.saving.is_none() && unsaved_for >= loss / SAVES_IN_LOSS;
        if !stands {
            if core.game.outcome().is_none() {
                core.step();
            }
            if let Some(outcome) = core.game.outcome() {
                return if self.end(core, outcome) { Step::Stopped } else { Step::Stood };
            }
        }
        if save {
            self.save_behind(core, now);
        }
        if stands { Step::Stood } else { Step::Done }
    }

    /// The game is over. False: the log has no room, and it is to be tried again.
    pub(super) fn end(self: &Arc<Self>, core: &mut Core, outcome: Outcome) -> bool {
        let Ok(mut change) = self.begin(core) else { return false };
        if let Some(ticks) = &mut core.ticks {
            ticks.ticking = false;
        }
        core.end(&mut change.additions, outcome, None, self.clock.now());
        core.tell_end();
        self.send(core, change);
        true
    }

    /// Sends the log what it was not told; nobody waits for it. False: the log has no room.
    pub(super) fn save_behind(self: &Arc<Self>, core: &mut Core, now: Instant) -> bool {
        let Ok(change) = self.begin_behind(core) else { return false };
        self.send(core, change);
        if let Some(ticks) = &mut core.ticks {
            (ticks.saving, ticks.saved_at) = (Some((core.sent, now)), now);
        }
        true
    }
}
