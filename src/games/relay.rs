//! `relay`: what players send goes to the others as it is, and all share one state.
//!
//! The server passes thousands of these a second, so a command is gone through once and its text
//! becomes the event, byte for byte, wherever it can. Later steps tell events apart by how they
//! begin, which is certain since [`Relay::decide`] alone makes them:
//! `{"send":`, `{"state":` or `{"to":[`.
//!
//! Looked at all the same is what could harm others: each value must be one that all clients can
//! read, in every codec.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    Audience, BadOption, Game, GameInfo, Leaving, Mode, Outcome, Refusal, RelayGame, SEATS_MAX,
    Seat, SeatSet, Setup, Viewer, refuse_unknown, to_raw,
};

/// The built-in game's name.
pub(super) const NAME: &str = "relay";

/// How deep a value that is passed on may nest.
const DEPTH_MAX: u8 = 64;

/// How an event for all others begins.
const SEND: &str = r#"{"send":"#;
/// How an event that changes the state begins.
const STATE: &str = r#"{"state":"#;
/// How an event for some seats begins; their numbers and a `]` follow.
const TO: &str = r#"{"to":["#;

/// How the built-in one is described.
pub(super) fn built_in() -> RelayGame {
    RelayGame {
        name: NAME.into(),
        title: "Relay".into(),
        description: "A room for games whose rules are in the client: what a player sends goes to \
                      the others as it is, and all share one state."
            .into(),
    }
}

/// What players are told.
pub(super) fn info(RelayGame { name, title, description }: RelayGame) -> GameInfo {
    GameInfo {
        name,
        title,
        description,
        min_players: 1,
        max_players: SEATS_MAX,
        mode: Mode::Relay,
        tick_hz: None,
        plugin: false,
        version: "1".into(),
        default_players: SEATS_MAX,
        grace_seconds: 30,
    }
}

/// A room whose state is null.
pub(super) fn start(setup: &Setup) -> Result<Box<dyn Game>, BadOption> {
    refuse_unknown(&setup.options, &[])?;
    let state = to_raw(&Event { to: None, send: None, state: Some(RawValue::NULL) });
    Ok(Box::new(Relay { players: setup.players, state, changed: false }))
}

struct Relay {
    players: u8,
    /// The event that set the state: it reads as the view does.
    state: Box<RawValue>,
    /// Since somebody last asked.
    changed: bool,
}

/// A command whose values have been checked and let go.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Command {
    #[serde(default, deserialize_with = "present")]
    send: Option<Checked>,
    #[serde(default, deserialize_with = "present")]
    state: Option<Checked>,
    #[serde(default, deserialize_with = "present")]
    to: Option<Vec<Seat>>,
}

/// The value of a checked command.
#[derive(Deserialize)]
struct Payload<'a> {
    #[serde(borrow, alias = "state")]
    send: &'a RawValue,
}

#[derive(Serialize)]
struct Event<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<&'a [Seat]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    send: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'a RawValue>,
}

impl Game for Relay {
    fn decide(&self, _seat: Seat, command: &RawValue) -> Result<Vec<Box<RawValue>>, Refusal> {
        let text = command.get();
        // Else an array would do, its items in the place of the fields.
        if !text.starts_with('{') {
            return Err(bad("a command is an object with send or state"));
        }
        let Command { send, state, to } = parse(text)?;
        match (&send, &state, &to) {
            (Some(_), None, Some(to)) => self.check_seats(to)?,
            (Some(_), None, None) | (None, Some(_), None) => {}
            _ => return Err(bad("a command has either send, and perhaps to, or state")),
        }
        if to.is_none() && (text.starts_with(SEND) || text.starts_with(STATE)) {
            return Ok(vec![command.to_owned()]);
        }
        let Payload { send: payload } = parse(text)?;
        let event =
            Event { to: to.as_deref(), send: send.map(|_| payload), state: state.map(|_| payload) };
        Ok(vec![to_raw(&event)])
    }

    fn apply(&mut self, _seat: Option<Seat>, event: &RawValue) {
        if event.get().starts_with(STATE) {
            self.state = event.to_owned();
            self.changed = true;
        }
    }

    fn leave(&mut self, _seat: Seat, _why: Leaving) {}

    fn audience(&self, seat: Option<Seat>, event: &RawValue) -> Audience {
        let Some(rest) = event.get().strip_prefix(TO) else {
            return seat.map_or(Audience::Everyone, Audience::Except);
        };
        let numbers = rest.split(']').next().unwrap_or_default().split(',');
        let named = numbers.filter_map(|number| number.parse().ok()).map(Seat);
        let named = named.fold(SeatSet::default(), SeatSet::with);
        Audience::Only(seat.map_or(named, |author| named.without(author)))
    }

    fn view(&self, _viewer: Viewer) -> Box<RawValue> {
        self.state.clone()
    }

    fn outcome(&self) -> Option<Outcome> {
        None
    }

    fn snapshot(&self) -> Option<Box<RawValue>> {
        Some(self.state.clone())
    }

    fn snapshot_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    fn restore(&mut self, snapshot: &RawValue) -> Result<(), String> {
        self.state = snapshot.to_owned();
        Ok(())
    }
}

impl Relay {
    fn check_seats(&self, to: &[Seat]) -> Result<(), Refusal> {
        if to.len() > usize::from(SEATS_MAX) {
            return Err(bad(format!("to names {} seats; it takes {SEATS_MAX} at most", to.len())));
        }
        match to.iter().find(|seat| seat.0 >= self.players) {
            Some(Seat(none)) => Err(bad(format!("to names seat {none} of {}", self.players))),
            None => Ok(()),
        }
    }
}

fn parse<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Refusal> {
    serde_json::from_str(text).map_err(|error| bad(error.to_string()))
}

fn bad(detail: impl Into<String>) -> Refusal {
    Refusal::BadCommand(detail.into())
}

/// A field that may be missing, and is there if it is null.
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(json: D) -> Result<Option<T>, D::Error> {
    T::deserialize(json).map(Some)
}

/// A value that can be passed on. It is gone through and not kept; the parser itself refuses
/// numbers too large for a double and halves of surrogate pairs once somebody asks for them.
struct Checked;

impl<'de> Deserialize<'de> for Checked {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        Levels(DEPTH_MAX).deserialize(json)
    }
}

/// How many more levels a value may have.
#[derive(Clone, Copy)]
struct Levels(u8);

impl Levels {
    fn inner<E: Error>(self) -> Result<Self, E> {
        let too_deep = || E::custom(format_args!("it nests more than {DEPTH_MAX} deep"));
        self.0.checked_sub(1).map(Self).ok_or_else(too_deep)
    }
}

impl<'de> DeserializeSeed<'de> for Levels {
    type Value = Checked;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Checked, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Levels {
    type Value = Checked;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_str<E>(self, _: &str) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Checked, A::Error> {
        let inner = self.inner()?;
        while items.next_element_seed(inner)?.is_some() {}
        Ok(Checked)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Checked, A::Error> {
        let inner = self.inner()?;
        while fields.next_key_seed(inner)?.is_some() {
            fields.next_value_seed(inner)?;
        }
        Ok(Checked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relay(players: u8) -> Box<dyn Game> {
        start(&Setup { players, seed: 0, options: serde_json::Map::new() }).unwrap()
    }

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.into()).unwrap()
    }

    /// The event of a command of seat 0 in a match of 4.
    fn event(command: &str) -> Result<String, Refusal> {
        let mut events = relay(4).decide(Seat(0), &raw(command))?;
        assert_eq!(events.len(), 1);
        Ok(events.remove(0).get().to_owned())
    }

    #[test]
    fn a_command_becomes_its_event() {
        for (command, expected) in [
            (r#"{"send":{"a":[1,-2.5e3,"x\u00e9",null,true]}}"#, None),
            (r#"{"send": "spaces stay" }"#, None),
            (r#"{"state":null}"#, None),
            (r#"{ "send" : 1 }"#, Some(r#"{"send":1}"#)),
            (r#"{"\u0073end":1}"#, Some(r#"{"send":1}"#)),
            (r#"{ "state": [1, 2]}"#, Some(r#"{"state":[1, 2]}"#)),
            (r#"{"send":"psst","to":[3, 1]}"#, Some(r#"{"to":[3,1],"send":"psst"}"#)),
            (r#"{"to":[],"send":null}"#, Some(r#"{"to":[],"send":null}"#)),
        ] {
            assert_eq!(event(command).as_deref(), Ok(expected.unwrap_or(command)));
        }
    }

    #[test]
    fn what_is_no_command_is_refused() {
        let long = format!(r#"{{"send":1,"to":[{}0]}}"#, "0,".repeat(64));
        let huge = format!(r#"{{"send":{}}}"#, "9".repeat(400));
        for command in [
            "null",
            "[1]",
            r#"["send"]"#,
            r#""send""#,
            "{}",
            r#"{"shout":1}"#,
            r#"{"to":[1]}"#,
            r#"{"send":1,"state":1}"#,
            r#"{"state":1,"to":[1]}"#,
            r#"{"send":1,"more":1}"#,
            r#"{"send":1,"send":1}"#,
            r#"{"send":1,"\u0073end":1}"#,
            r#"{"send":1,"to":[1],"to":[1]}"#,
            r#"{"send":1,"to":null}"#,
            r#"{"send":1,"to":1}"#,
            r#"{"send":1,"to":[4]}"#,
            r#"{"send":1,"to":[-1]}"#,
            r#"{"send":1,"to":[1.0]}"#,
            r#"{"send":1,"to":[256]}"#,
            r#"{"send":1e999}"#,
            r#"{"state":{"x":[-1e309]}}"#,
            r#"{"send":"\ud800"}"#,
            r#"{"send":["\udc00\ud800"]}"#,
            r#"{"send":{"\udfff":1}}"#,
            &long,
            &huge,
        ] {
            assert!(matches!(event(command), Err(Refusal::BadCommand(_))), "{command}");
        }
    }

    #[test]
    fn values_nest_64_deep_and_no_deeper() {
        let nested = |open: &str, close: &str, depth| {
            format!(r#"{{"send":{}1{}}}"#, open.repeat(depth), close.repeat(depth))
        };
        for (open, close) in [("[", "]"), (r#"{"a":"#, "}"), ("[1,", "]")] {
            assert!(event(&nested(open, close, 64)).is_ok());
            for depth in [65, 127, 128, 10_000] {
                assert!(matches!(event(&nested(open, close, depth)), Err(Refusal::BadCommand(_))));
            }
        }
    }

    #[test]
    fn the_audience_follows_from_the_event() {
        let relay = relay(64);
        let audience = |command: &str| {
            let event = &relay.decide(Seat(1), &raw(command)).unwrap()[0];
            relay.audience(Some(Seat(1)), event)
        };
        let only = |seats: &[u8]| {
            let seats = seats.iter().copied().map(Seat);
            Audience::Only(seats.fold(SeatSet::default(), SeatSet::with))
        };
        assert_eq!(audience(r#"{"send":{"to":[2]}}"#), Audience::Except(Seat(1)));
        assert_eq!(audience(r#"{"state":1}"#), Audience::Except(Seat(1)));
        assert_eq!(audience(r#"{"send":1,"to":[63,0,0]}"#), only(&[0, 63]));
        assert_eq!(audience(r#"{"send":1,"to":[1, 2]}"#), only(&[2]));
        assert_eq!(audience(r#"{"send":1,"to":[1]}"#), only(&[]));
        assert_eq!(audience(r#"{"to":[],"send":[3]}"#), only(&[]));
    }

    #[test]
    fn the_state_is_kept_and_taken_back() {
        let mut first = relay(2);
        assert_eq!(first.view(Viewer::Spectator).get(), r#"{"state":null}"#);
        for (command, changes) in
            [(r#"{"send":{"state":1}}"#, false), (r#"{ "state": {"level":7}}"#, true)]
        {
            let event = &first.decide(Seat(0), &raw(command)).unwrap()[0];
            first.apply(Some(Seat(0)), event);
            assert_eq!(first.snapshot_changed(), changes);
            assert!(!first.snapshot_changed());
        }
        let mut second = relay(2);
        second.restore(&first.snapshot().unwrap()).unwrap();
        assert_eq!(second.view(Viewer::Seat(Seat(1))).get(), r#"{"state":{"level":7}}"#);
        assert!(!second.snapshot_changed());
    }
}
