//! Games for gameserver, written in Rust with types of their own.
//!
//! Implement [`Rules`] for the state of a match, and hand the type to [`export!`]: that makes a
//! WebAssembly module of the crate (`crate-type = ["cdylib"]`) which the server takes as a game, see
//! `docs/plugins.md`. Commands, events, views and the state are types that serde knows.
//!
//! State changes in two steps, so that the log of a match is all there is to know of it:
//! [`Rules::decide`] looks at a command and says which events follow; [`Rules::apply`] takes one
//! event. After a crash, or on another node, the same events must lead to the same state, so the
//! only chance there is comes from [`random`], and there is no clock.
//!
//! A panic ends the match, and no other; its message stands in the server's log.

#[doc(hidden)]
pub mod export;
pub mod random;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Of an option's value that is refused, so many characters are shown.
const SHOWN_CHARS_MAX: usize = 64;

/// The rules of a game; the type itself is the state of one match, and its snapshot as JSON.
pub trait Rules: Serialize + DeserializeOwned + 'static {
    /// What a player can ask for. What is no such thing is refused before `decide` sees it.
    type Command: Serialize + DeserializeOwned;
    /// What can happen.
    type Event: Serialize + DeserializeOwned;
    /// What somebody sees.
    type View: Serialize;

    /// What there is to know of the game.
    fn info() -> Info;

    /// The state that a match begins with, or the option that the game does not take. May ask
    /// [`random`].
    fn start(setup: &Setup) -> Result<Self, BadOption>;

    /// The events that follow from `command` of `seat`, in order: 1 to 64.
    fn decide(&self, seat: Seat, command: Self::Command) -> Result<Vec<Self::Event>, Refusal>;

    /// Takes an event that `decide` gave for this seat, now or in another life of the match. May ask
    /// [`random`].
    fn apply(&mut self, seat: Option<Seat>, event: Self::Event);

    /// One step of a game in [`Mode::Ticks`], once the step's events have been applied; such a game
    /// is exported with `export!(Game, tick)`. May ask [`random`].
    fn tick(&mut self) {}

    /// A seat's player left the running match for good. May ask [`random`].
    fn leave(&mut self, seat: Seat, why: Leaving);

    /// Who may be told of an event; it must follow from the event alone. Only asked if the game is
    /// exported with `export!(Game, audience)`.
    fn audience(_seat: Option<Seat>, _event: &Self::Event) -> Audience {
        Audience::Everyone
    }

    /// What `viewer` may see of the state.
    fn view(&self, viewer: Viewer) -> Self::View;

    /// How the match ended; `None` while it is played.
    fn outcome(&self) -> Option<Outcome>;

    /// What a seat might ask for now: for bots, and for `gameserver check-game`.
    fn commands(&self, seat: Seat) -> Vec<Self::Command>;
}

/// A player's place in a match, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seat(pub u8);

impl Seat {
    /// The seat's place in a list with one item a seat.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// Some seats of one match.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeatSet(u64);

impl SeatSet {
    /// This set and `seat`. Seats from 64 on do not exist and are passed over.
    #[must_use]
    pub fn with(self, seat: Seat) -> Self {
        Self(self.0 | 1u64.checked_shl(u32::from(seat.0)).unwrap_or(0))
    }

    /// Whether `seat` is one of them.
    pub fn contains(self, seat: Seat) -> bool {
        self.0 & Self::default().with(seat).0 != 0
    }
}

/// Who looks at a match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Viewer {
    /// The player of a seat.
    Seat(Seat),
    /// Anybody else.
    Spectator,
}

/// Who may be told of an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Audience {
    /// Players and spectators.
    Everyone,
    /// Players and spectators but for one seat.
    Except(Seat),
    /// These seats and nobody else.
    Only(Vec<Seat>),
}

/// How a game's time passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Players move when they like or when it is their turn.
    Turns,
    /// The server moves the game by steps, and commands wait for the next one.
    Ticks,
}

/// What there is to know of a game.
#[derive(Clone, Debug, Serialize)]
pub struct Info {
    /// For people: 1 to 64 characters.
    pub title: &'static str,
    /// A sentence or two on how it is played: 1 to 500 characters.
    pub description: &'static str,
    /// Fewest seats, at least 1.
    pub min_players: u8,
    /// Most seats, 64 at most.
    pub max_players: u8,
    /// Seats of a match whose options do not say.
    pub default_players: u8,
    /// How its time passes.
    pub mode: Mode,
    /// Steps a second in [`Mode::Ticks`]: 1 to 60.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tick_hz: Option<u16>,
    /// How long a player whose connection dropped keeps the seat, in seconds: 1 to 3600.
    pub grace_seconds: u32,
    /// Whether all see the same, so that a step's view is made once for all of them.
    pub one_view: bool,
}

/// What a match starts from.
#[derive(Debug, Deserialize)]
pub struct Setup {
    /// Seats, within the game's bounds.
    pub players: u8,
    /// The options that the match was created with, each as JSON.
    pub options: BTreeMap<String, Box<RawValue>>,
}

impl Setup {
    /// An option that is a whole number, if it is there.
    pub fn whole(&self, name: &str, takes: RangeInclusive<u8>) -> Result<Option<u8>, BadOption> {
        let Some(value) = self.options.get(name) else { return Ok(None) };
        let number = serde_json::from_str(value.get()).ok();
        number.filter(|number| takes.contains(number)).map(Some).ok_or_else(|| {
            let got: String = value.get().chars().take(SHOWN_CHARS_MAX).collect();
            let (min, max) = takes.into_inner();
            let detail = format!("got {got}; it takes a whole number from {min} to {max}");
            BadOption { option: name.into(), detail }
        })
    }

    /// Refuses options that are not `known`. All games have `players`, which is not among them.
    pub fn refuse_unknown(&self, known: &[&str]) -> Result<(), BadOption> {
        let Some(unknown) = self.options.keys().find(|name| !known.contains(&name.as_str())) else {
            return Ok(());
        };
        let takes = [&["players"], known].concat().join(", ");
        let detail = format!("the game has no such option; it takes {takes}");
        Err(BadOption { option: unknown.clone(), detail })
    }
}

/// An option that a game does not take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BadOption {
    /// Its name.
    pub option: String,
    /// What it got and what it takes.
    pub detail: String,
}

/// Why a command is refused. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "refused", content = "detail", rename_all = "snake_case")]
pub enum Refusal {
    /// Somebody else is to move.
    NotYourTurn,
    /// The rules forbid it; the text says which rule.
    IllegalMove(String),
    /// Not a command of this game; the text says what is wrong.
    BadCommand(String),
}

/// How a match ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The seats that won, in rising order; empty in a draw or where nobody wins.
    pub winners: Vec<Seat>,
    /// Whether it is a draw.
    pub draw: bool,
    /// `completed`, `resigned`, `timeout`, or a word of the game's own.
    pub reason: String,
}

impl Outcome {
    /// Of a game played to its end: the one who is best wins; none or several are a draw.
    pub fn completed(best: Vec<Seat>) -> Self {
        let draw = best.len() != 1;
        let winners = if draw { Vec::new() } else { best };
        Self { winners, draw, reason: "completed".into() }
    }

    /// The last one left wins.
    pub fn left_alone(winner: Seat, why: Leaving) -> Self {
        Self { winners: vec![winner], draw: false, reason: why.reason().into() }
    }
}

/// Why a player left a running match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaving {
    /// Gave up.
    Resigned,
    /// Did not come back within the grace period.
    Timeout,
}

impl Leaving {
    /// The `reason` of an outcome that follows from it.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Resigned => "resigned",
            Self::Timeout => "timeout",
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_refused_option_is_named_and_not_shown_at_length() {
        let setup = |options: serde_json::Value| -> Setup {
            serde_json::from_value(json!({"players": 2, "options": options})).unwrap()
        };
        let good = setup(json!({"size": 19}));
        assert_eq!(good.whole("size", 3..=19), Ok(Some(19)));
        assert_eq!(good.whole("rounds", 1..=9), Ok(None));
        assert_eq!(good.refuse_unknown(&["size"]), Ok(()));
        assert_eq!(
            json!(good.refuse_unknown(&["rounds"]).unwrap_err()),
            json!({"option": "size", "detail": "the game has no such option; it takes players, rounds"})
        );
        for bad in [json!(2), json!(20), json!(256), json!(3.0), json!("3"), json!(null)] {
            let refused = setup(json!({ "size": bad })).whole("size", 3..=19).unwrap_err();
            let detail = format!("got {bad}; it takes a whole number from 3 to 19");
            assert_eq!(refused, BadOption { option: "size".into(), detail });
        }
        let long = setup(json!({"size": "x".repeat(10_000)})).whole("size", 3..=19).unwrap_err();
        assert!(long.detail.len() < 200, "{}", long.detail);
    }

    #[test]
    fn answers_are_as_the_interface_says() {
        assert_eq!(json!(Refusal::NotYourTurn), json!({"refused": "not_your_turn"}));
        let illegal = Refusal::IllegalMove("taken".into());
        assert_eq!(json!(illegal), json!({"refused": "illegal_move", "detail": "taken"}));
        assert_eq!(json!(Audience::Except(Seat(1))), json!({"except": 1}));
        assert_eq!(json!(Audience::Only(vec![Seat(0), Seat(2)])), json!({"only": [0, 2]}));
    }
}
