//! Snapshots of a match's log: how long it takes to rebuild a match does not grow with its log.
//!
//! A snapshot goes to the store in the same commit as the change that it includes. The log stays
//! whole and is what counts: who finds no snapshot, or one that can't be read, replays all of it.
//! `relay` matches have none, since their messages are not in the log.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::core::{Core, Occupant};
use super::event::NOBODY;
use crate::games::{Outcome, Seat};
use crate::store::{MatchState, PlayerRecord, Snapshot};

/// Events after which a snapshot is due: a rebuild replays little more, and each event's part in a
/// snapshot is small.
const SNAPSHOT_EVENTS: u64 = 256;
/// Steps of a `ticks` game after which one is due, however little was done in them: they all are gone
/// through in a rebuild.
const SNAPSHOT_STEPS: u64 = 1024;

/// All that follows from a log. Accounts and their names stand beside the match's seats, so that
/// nothing of an account that was deleted is kept here.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Whole {
    state: MatchState,
    outcome: Option<Outcome>,
    /// Of a `ticks` game: its steps so far. Servers that know none refuse it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tick: Option<u64>,
    seats: Vec<Option<Taken>>,
    game: Box<RawValue>,
}

/// A taken seat; see [`Occupant`].
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Taken {
    joined_seq: u64,
    gone: bool,
    applied: VecDeque<(u64, u64)>,
}

/// A snapshot, if the latest one is old enough and the game gives any.
pub(super) fn take_if_due(core: &mut Core) -> Option<Snapshot> {
    let steps = core.ticks.as_ref().map_or(0, |ticks| ticks.tick - ticks.snapshot_tick);
    if core.seq - core.snapshot_seq < SNAPSHOT_EVENTS && steps < SNAPSHOT_STEPS {
        return None;
    }
    core.snapshot_seq = core.seq;
    if let Some(ticks) = &mut core.ticks {
        ticks.snapshot_tick = ticks.tick;
    }
    take(core)
}

/// A snapshot, if the game gives any.
pub(super) fn take(core: &Core) -> Option<Snapshot> {
    let taken = |Occupant { joined_seq, gone, applied, .. }: &Occupant| Taken {
        joined_seq: *joined_seq,
        gone: *gone,
        applied: applied.clone(),
    };
    let whole = Whole {
        state: core.record.state,
        outcome: core.record.outcome.clone(),
        tick: core.ticks.as_ref().map(|ticks| ticks.tick),
        seats: core.seats.iter().map(|seat| seat.as_ref().map(taken)).collect(),
        game: core.game.snapshot()?,
    };
    let state = serde_json::to_string(&whole).expect("a snapshot is JSON");
    Some(Snapshot { seq: core.seq, state })
}

/// Brings a new match to where a snapshot was taken. Who has a seat is what the record says of now:
/// a seat that was taken later comes to be so when the rest of the log is replayed.
pub(super) fn restore(core: &mut Core, snapshot: &Snapshot, now: u32) -> Result<(), String> {
    let unreadable = |error: String| format!("the snapshot at {}: {error}", snapshot.seq);
    let Whole { state, outcome, tick, seats, game } =
        serde_json::from_str(&snapshot.state).map_err(|error| unreadable(error.to_string()))?;
    if seats.len() != core.seats.len() {
        return Err(unreadable(format!("it has {} seats", seats.len())));
    }
    core.game.restore(&game).map_err(unreadable)?;
    let players = std::mem::take(&mut core.record.players);
    core.seats = (0..)
        .map(Seat)
        .zip(seats)
        .map(|(seat, taken)| {
            let Taken { joined_seq, gone, applied } = taken?;
            let player = players.iter().find(|player| player.seat == seat);
            let (user, name) = player
                .map_or((None, None), |PlayerRecord { user, display_name, .. }| {
                    (*user, display_name.clone())
                });
            let occupant =
                Occupant::new(user, name.unwrap_or_else(|| NOBODY.into()), joined_seq, now);
            Some(Occupant { gone, applied, ..occupant })
        })
        .collect();
    (core.record.state, core.record.outcome) = (state, outcome);
    (core.seq, core.snapshot_seq) = (snapshot.seq, snapshot.seq);
    if let Some(ticks) = &mut core.ticks {
        let tick = tick.unwrap_or(0);
        (ticks.tick, ticks.snapshot_tick) = (tick, tick);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, json};

    use super::super::event::{Structural, Who};
    use super::*;
    use crate::games::{Catalog, Leaving, Mode, Viewer, setup};
    use crate::ids::{MatchId, Timestamp, UserId};
    use crate::store::{EventRecord, MatchRecord, Visibility};

    const NOW: u32 = 7;

    /// A match that is played by chance, and its log.
    struct Played {
        core: Core,
        game: &'static str,
        log: Vec<EventRecord>,
        next_id: u64,
    }

    fn core(game: &str, seats: u8, players: Vec<PlayerRecord>) -> Core {
        let catalog = Catalog::new(None, Vec::new());
        let game_type = catalog.find(game).unwrap();
        let mut options = Map::new();
        options.insert("players".into(), seats.into());
        let setup = setup(game_type.info(), options, 5).unwrap();
        let record = MatchRecord {
            id: MatchId(uuid::Uuid::nil()),
            game: game.into(),
            game_version: game_type.info().version.clone(),
            seed: 5,
            options: "{}".into(),
            seats,
            state: MatchState::Open,
            visibility: Visibility::Public,
            join_code: None,
            created_at: Timestamp(0),
            seq: 0,
            outcome: None,
            ratings: None,
            snapshot: None,
            players,
        };
        let mode = game_type.info().mode;
        Core::new(record, game_type.start(&setup).unwrap(), mode, NOW)
    }

    /// All that players and the engine can tell a match from another by.
    fn shown(core: &Core) -> String {
        let viewers = (0..core.record.seats).map(|seat| Viewer::Seat(Seat(seat)));
        let views: Vec<_> =
            viewers.chain([Viewer::Spectator]).map(|viewer| core.game.view(viewer)).collect();
        let seats: Vec<_> = core
            .seats
            .iter()
            .map(|seat| {
                let Occupant { user, display_name, joined_seq, gone, absent_since, applied } =
                    seat.as_ref()?;
                Some(json!([user, display_name, joined_seq, gone, absent_since, applied]))
            })
            .collect();
        let tick = core.ticks.as_ref().map(|ticks| ticks.tick);
        let game = (core.game.outcome(), core.game.snapshot(), tick);
        json!([views, seats, game, core.seq, core.record.state, core.record.outcome]).to_string()
    }

    impl Played {
        fn take(&mut self, event: EventRecord) {
            let mode = if self.game == "arena" { Mode::Ticks } else { Mode::Turns };
            self.core.replay(&event, mode, NOW).unwrap();
            self.log.push(event);
        }

        fn happen(&mut self, event: &Structural, command_id: Option<u64>) {
            let record = event.record(self.core.seq + 1, Timestamp(0));
            let display_name = record.user.map(|user| user.to_string());
            self.take(EventRecord { command_id, display_name, ..record });
        }

        fn end_if_over(&mut self, command_id: Option<u64>) {
            if let Some(outcome) = self.core.game.outcome() {
                self.happen(&Structural::Ended(outcome), command_id);
            }
        }

        fn step(&mut self, (who, kind, what): (u8, u8, u8)) {
            let seat = Seat(who % self.core.record.seats);
            let state = self.core.record.state;
            match state {
                MatchState::Ended => {}
                MatchState::Open if self.core.occupant(seat).is_some() => {
                    self.happen(
                        &Structural::Left { seat, reason: Leaving::Left, tick: None },
                        None,
                    );
                }
                MatchState::Open => {
                    let who = Who { user: Some(UserId::new()), display_name: String::new() };
                    self.happen(&Structural::Joined { seat, who: Some(who) }, None);
                    if self.core.seats.iter().all(Option::is_some) {
                        let players = self.core.record.seats;
                        self.happen(&Structural::Started { players }, None);
                    }
                }
                MatchState::Running if kind < 4 => {
                    if self.core.occupant(seat).is_some_and(|occupant| !occupant.gone) {
                        let reason = Leaving::Resigned;
                        self.happen(&Structural::Left { seat, reason, tick: None }, None);
                        self.end_if_over(None);
                    }
                }
                MatchState::Running => self.command(what),
            }
        }

        /// A command of whoever is to move.
        fn command(&mut self, what: u8) {
            let view: serde_json::Value =
                serde_json::from_str(self.core.game.view(Viewer::Spectator).get()).unwrap();
            let seat: Seat = serde_json::from_value(view["turn"].clone()).unwrap();
            let command = match self.game {
                "pairs" => json!({ "flip": what % 16 }),
                _ => json!({ "place": what % 9 }),
            };
            let command = serde_json::value::to_raw_value(&command).unwrap();
            let Ok(events) = self.core.game.decide(seat, &command) else { return };
            self.next_id += 1 + u64::from(what % 3);
            let command_id = Some(self.next_id);
            for event in events {
                self.take(EventRecord {
                    seq: self.core.seq + 1,
                    at: Timestamp(0),
                    seat: Some(seat),
                    command_id,
                    user: None,
                    display_name: None,
                    structural: false,
                    event: event.get().into(),
                });
            }
            self.end_if_over(command_id);
        }

        /// As the store has them in the end.
        fn players(&self) -> Vec<PlayerRecord> {
            let taken = (0..).map(Seat).zip(&self.core.seats);
            taken
                .filter_map(|(seat, occupant)| {
                    let Occupant { user, display_name, .. } = occupant.as_ref()?;
                    let display_name = Some(display_name.clone());
                    Some(PlayerRecord { seat, user: *user, display_name })
                })
                .collect()
        }
    }

    fn play(game: &'static str, seats: u8, wishes: &[(u8, u8, u8)]) -> Played {
        let core = core(game, seats, Vec::new());
        let mut played = Played { core, game, log: Vec::new(), next_id: 0 };
        for wish in wishes {
            played.step(*wish);
        }
        played
    }

    proptest! {
        #[test]
        fn a_snapshot_and_what_follows_are_the_whole_log(
            pairs: bool,
            seats in 2..4_u8,
            wishes in prop::collection::vec(any::<(u8, u8, u8)>(), 0..120),
        ) {
            let (game, seats) = if pairs { ("pairs", seats) } else { ("tictactoe", 2) };
            let played = play(game, seats, &wishes);
            let whole = shown(&played.core);
            let mut former = core(game, seats, Vec::new());
            for taken_at in 0..=played.log.len() {
                let snapshot = take(&former).unwrap();
                prop_assert_eq!(snapshot.seq, taken_at as u64);
                let mut later = core(game, seats, played.players());
                restore(&mut later, &snapshot, NOW).unwrap();
                for event in &played.log[taken_at..] {
                    later.replay(event, Mode::Turns, NOW).unwrap();
                }
                prop_assert_eq!(&shown(&later), &whole, "taken at {}", taken_at);
                if let Some(event) = played.log.get(taken_at) {
                    former.replay(event, Mode::Turns, NOW).unwrap();
                }
            }
        }
    }

    /// Steps a match of `arena` on, by chance: somebody turns, or leaves.
    fn ride(played: &mut Played, (who, kind, what): (u8, u8, u8)) {
        let seat = Seat(who % played.core.record.seats);
        let there = played.core.occupant(seat).is_some_and(|occupant| !occupant.gone);
        let core = &mut played.core;
        let tick = core.ticks.as_ref().map(|ticks| ticks.tick);
        if core.record.state != MatchState::Running {
            return;
        }
        if kind < 2 && there {
            let reason = Leaving::Resigned;
            played.happen(&Structural::Left { seat, reason, tick }, None);
            played.end_if_over(None);
        } else if kind < 60 && there {
            let to = ["up", "right", "down", "left"][usize::from(what % 4)];
            let command = serde_json::value::to_raw_value(&json!({ "turn": to })).unwrap();
            if let Ok(events) = core.game.decide(seat, &command) {
                played.next_id += 1;
                let ticks = core.ticks.as_mut().unwrap();
                ticks.gather(seat, played.next_id, events).unwrap();
            }
        }
        if played.core.record.state == MatchState::Running && played.core.game.outcome().is_none() {
            played.core.step();
            played.log.extend(played.core.ticks.as_mut().unwrap().take_unsaved());
            played.end_if_over(None);
        }
    }

    proptest! {
        #[test]
        fn a_snapshot_of_steps_and_what_follows_are_the_whole_log(
            seats in 2..4_u8,
            wishes in prop::collection::vec(any::<(u8, u8, u8)>(), 0..300),
            between in 0..8_u64,
        ) {
            let joins = [(0, 9, 0), (1, 9, 0), (2, 9, 0)];
            let mut played = play("arena", seats, &joins[..usize::from(seats)]);
            for wish in wishes {
                ride(&mut played, wish);
            }
            let end = played.core.ticks.as_ref().unwrap().tick;
            let whole = shown(&played.core);
            let mut former = core("arena", seats, Vec::new());
            for taken_at in 0..=played.log.len() {
                let mut later = core("arena", seats, played.players());
                restore(&mut later, &take(&former).unwrap(), NOW).unwrap();
                for event in &played.log[taken_at..] {
                    later.replay(event, Mode::Ticks, NOW).unwrap();
                }
                later.rebuilt_at(end);
                prop_assert_eq!(&shown(&later), &whole, "taken at {}", taken_at);
                let Some(event) = played.log.get(taken_at) else { break };
                let value: serde_json::Value = serde_json::from_str(&event.event).unwrap();
                let tick = value["tick"].as_u64().unwrap_or(0);
                // The next one is taken some steps after this event, if there is time.
                former.replay(event, Mode::Ticks, NOW).unwrap();
                let next = played.log.get(taken_at + 1).map_or(end + 1, |next| {
                    let next: serde_json::Value = serde_json::from_str(&next.event).unwrap();
                    let left = next["left"]["tick"].as_u64().map(|tick| tick + 1);
                    next["tick"].as_u64().or(left).unwrap_or(0)
                });
                former.advance_to((tick + between).min(next.saturating_sub(1)));
            }
        }
    }

    #[test]
    fn a_snapshot_is_taken_when_enough_has_happened_and_names_nobody() {
        let mut played = play("pairs", 2, &[(0, 9, 0), (1, 9, 0)]);
        assert_eq!(played.core.seq, 3);
        assert_eq!(take_if_due(&mut played.core), None);
        let mut taken = Vec::new();
        // Two cards that differ are turned up again and again.
        let differ = (1..16).find(|place| {
            let mut tried = play("pairs", 2, &[(0, 9, 0), (1, 9, 0), (0, 9, 0), (0, 9, *place)]);
            tried.log.pop().unwrap().event.contains("hidden")
        });
        while played.core.seq < 3 * SNAPSHOT_EVENTS + 6 {
            for place in [0, differ.unwrap()] {
                played.command(place);
            }
            taken.extend(take_if_due(&mut played.core));
        }
        assert_eq!(taken.iter().map(|snapshot| snapshot.seq).collect::<Vec<_>>(), [258, 516, 774]);
        for PlayerRecord { user, .. } in played.players() {
            assert!(!taken[2].state.contains(&user.unwrap().to_string()), "{taken:?}");
        }
    }

    #[test]
    fn a_snapshot_that_can_not_be_read_changes_nothing() {
        let played = play("pairs", 2, &[(0, 9, 0), (1, 9, 0), (0, 9, 3)]);
        let good = take(&played.core).unwrap();
        let three = take(&core("pairs", 3, Vec::new())).unwrap();
        let others = [
            "{}".to_owned(),
            good.state.replace("joined_seq", "since"),
            good.state.replace("\"up\"", "\"down\""),
            three.state,
        ];
        for state in others {
            let mut fresh = core("pairs", 2, Vec::new());
            let before = shown(&fresh);
            let error = restore(&mut fresh, &Snapshot { seq: 4, state }, NOW).unwrap_err();
            assert!(error.contains("the snapshot at 4"), "{error}");
            assert_eq!(shown(&fresh), before);
        }
    }
}
