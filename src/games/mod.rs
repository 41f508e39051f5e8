//! The rules of games: pure and deterministic.
//!
//! Nothing here knows tokio, sockets, stores, the clock or a source of randomness: a seed is an
//! argument, and the same events always give the same state. A game is written against [`Rules`]
//! with types of its own; [`Typed`] lets the match engine run it as a [`Game`], which speaks JSON
//! alone. Only a game that must not look into its payloads (`relay`) implements [`Game`] itself.
//!
//! State changes in two steps, so that a log can be replayed: `decide` looks at a command and says
//! which events follow; `apply` takes one event. `decide` never changes anything, `apply` never
//! refuses anything.

mod arena;
mod catalog;
mod pairs;
#[cfg(test)]
mod properties;
mod relay;
mod rng;
mod tictactoe;
pub mod wasm;

pub use catalog::{BUILT_IN, Catalog, NAME_BYTES_MAX, RelayGame, is_built_in, is_name};
pub use rng::Rng;

use std::ops::RangeInclusive;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// The most seats a match can have; a [`SeatSet`] is a bit for each.
pub const SEATS_MAX: u8 = 64;
/// Most steps a second of a `ticks` game; the fewest are 1.
pub const TICK_HZ_MAX: u16 = 60;
/// The option that all games have.
pub const PLAYERS: &str = "players";
/// Of an option's value that is refused, so many characters are shown.
const SHOWN_CHARS_MAX: usize = 64;

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
    /// This set and `seat`. Seats from [`SEATS_MAX`] on do not exist and are passed over.
    #[must_use]
    pub fn with(self, seat: Seat) -> Self {
        Self(self.0 | 1u64.checked_shl(u32::from(seat.0)).unwrap_or(0))
    }

    /// This set without `seat`.
    #[must_use]
    pub fn without(self, seat: Seat) -> Self {
        Self(self.0 & !Self::default().with(seat).0)
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

/// Who may be told of an event. It follows from the event alone, so that the log of a match shows
/// later what its sockets showed at the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Players and spectators.
    Everyone,
    /// Players and spectators but for one seat.
    Except(Seat),
    /// These seats and nobody else.
    Only(SeatSet),
}

impl Audience {
    /// Whether `viewer` belongs to it.
    pub fn includes(self, viewer: Viewer) -> bool {
        match (self, viewer) {
            (Self::Everyone, _) | (Self::Except(_), Viewer::Spectator) => true,
            (Self::Except(not), Viewer::Seat(seat)) => seat != not,
            (Self::Only(seats), Viewer::Seat(seat)) => seats.contains(seat),
            (Self::Only(_), Viewer::Spectator) => false,
        }
    }
}

/// How a game's time passes, and what its log promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Players move when they like or when it is their turn; every event is committed before
    /// anyone is told of it.
    Turns,
    /// The server's clock moves the game: commands gather between two steps and are applied in the
    /// next one, by seat and in the order in which each seat sent them.
    Ticks,
    /// The server passes on what players send and keeps one shared state; nothing is judged.
    Relay,
}

/// What players are told of a game before they play it, and what the engine must know of it.
#[derive(Clone, Debug, Serialize)]
pub struct GameInfo {
    /// The name in addresses: `a-z`, `0-9`, `-`; at most 32 characters.
    pub name: String,
    /// For people; at most 64 characters.
    pub title: String,
    /// A sentence or two on how it is played.
    pub description: String,
    /// Fewest seats a match can have.
    pub min_players: u8,
    /// Most seats a match can have, [`SEATS_MAX`] at most.
    pub max_players: u8,
    /// How its time passes.
    pub mode: Mode,
    /// Steps a second of a `ticks` game, [`TICK_HZ_MAX`] at most.
    pub tick_hz: Option<u16>,
    /// Whether it was loaded at run time.
    pub plugin: bool,
    /// Of the rules: a log is replayed with the version that wrote it.
    pub version: String,
    /// Seats of a match whose options do not say.
    #[serde(skip)]
    pub default_players: u8,
    /// How long a player whose socket dropped keeps the seat, in seconds.
    #[serde(skip)]
    pub grace_seconds: u32,
}

/// What a match starts from.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Seats, within the game's bounds.
    pub players: u8,
    /// The only source of chance.
    pub seed: u64,
    /// The options that the match was created with: a JSON object; `players` is taken out.
    pub options: Map<String, Value>,
}

/// Options that a game does not take: which, and what it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadOption {
    /// The option's name.
    pub field: String,
    /// What it got and what it takes.
    pub detail: String,
}

/// What a match of a game starts from: takes `players` out of its options.
pub fn setup(
    info: &GameInfo,
    mut options: Map<String, Value>,
    seed: u64,
) -> Result<Setup, BadOption> {
    let players = whole(&options, PLAYERS, info.min_players..=info.max_players)?;
    options.remove(PLAYERS);
    Ok(Setup { players: players.unwrap_or(info.default_players), seed, options })
}

/// An option that is a whole number, if it is there.
fn whole(
    options: &Map<String, Value>,
    name: &str,
    takes: RangeInclusive<u8>,
) -> Result<Option<u8>, BadOption> {
    let Some(value) = options.get(name) else { return Ok(None) };
    let number = value.as_u64().and_then(|number| u8::try_from(number).ok());
    number.filter(|number| takes.contains(number)).map(Some).ok_or_else(|| {
        let got: String = value.to_string().chars().take(SHOWN_CHARS_MAX).collect();
        let (min, max) = takes.into_inner();
        let detail = format!("got {got}; it takes a whole number from {min} to {max}");
        BadOption { field: name.into(), detail }
    })
}

/// Refuses options that are not `known`; `players` has been taken out.
fn refuse_unknown(options: &Map<String, Value>, known: &[&str]) -> Result<(), BadOption> {
    let Some(unknown) = options.keys().find(|name| !known.contains(&name.as_str())) else {
        return Ok(());
    };
    let takes = [&[PLAYERS], known].concat().join(", ");
    let detail = format!("the game has no such option; it takes {takes}");
    Err(BadOption { field: unknown.clone(), detail })
}

/// Why a command is refused. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Somebody else is to move.
    NotYourTurn,
    /// The rules forbid it; the text says which rule.
    IllegalMove(String),
    /// Not a command of this game; the text says what is wrong.
    BadCommand(String),
    /// The rules can't go on: see [`Game::failure`].
    Failed,
}

/// How a match ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The seats that won, in rising order; empty in a draw or where nobody wins.
    pub winners: Vec<Seat>,
    /// Whether it is a draw.
    pub draw: bool,
    /// `completed`, `resigned`, `timeout`, `abandoned`, or a word of the game's own.
    pub reason: String,
}

impl Outcome {
    /// Of a game played to its end: the one who is best wins; none or several are a draw.
    fn completed(best: Vec<Seat>) -> Self {
        let draw = best.len() != 1;
        let winners = if draw { Vec::new() } else { best };
        Self { winners, draw, reason: "completed".into() }
    }

    /// The last one left wins.
    fn left_alone(winner: Seat, why: Leaving) -> Self {
        Self { winners: vec![winner], draw: false, reason: why.reason().into() }
    }
}

/// Why a player left a running match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Leaving {
    /// Left an open match, or a `relay` one.
    Left,
    /// Gave up.
    Resigned,
    /// Did not come back within the grace period.
    Timeout,
}

impl Leaving {
    /// The `reason` of an outcome that follows from it.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Resigned => "resigned",
            Self::Timeout => "timeout",
        }
    }
}

/// A set of rules that the engine can start matches of.
pub trait GameType: Send + Sync {
    /// What there is to know of it.
    fn info(&self) -> &GameInfo;

    /// The state that a match begins with.
    fn start(&self, setup: &Setup) -> Result<Box<dyn Game>, NoStart>;
}

/// Why a match does not begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoStart {
    /// The game does not take an option.
    BadOption(BadOption),
    /// Its rules have failed; the text is for whoever wrote them.
    Failed(String),
}

/// One match's rules and state as the engine sees them: JSON in, JSON out.
pub trait Game: Send {
    /// The events that follow from `command` of `seat`, in order; at least one.
    fn decide(&self, seat: Seat, command: &RawValue) -> Result<Vec<Box<RawValue>>, Refusal>;

    /// Takes an event that `decide` gave, now or in another life of the match.
    fn apply(&mut self, seat: Option<Seat>, event: &RawValue);

    /// One step of a `ticks` game, once the step's events have been applied. After the end nothing
    /// changes any more.
    fn tick(&mut self) {}

    /// A seat's player left the running match for good.
    fn leave(&mut self, seat: Seat, why: Leaving);

    /// Who may be told of an event. All may be told of what was done in a `ticks` game: it is not
    /// asked.
    fn audience(&self, _seat: Option<Seat>, _event: &RawValue) -> Audience {
        Audience::Everyone
    }

    /// What `viewer` may see of the state.
    fn view(&self, viewer: Viewer) -> Box<RawValue>;

    /// Whether all see the same, so that a `ticks` game's view is made once for all of them.
    fn has_one_view(&self) -> bool {
        false
    }

    /// How it ended; `None` while it is played.
    fn outcome(&self) -> Option<Outcome>;

    /// All of the state, kept beside the log: in `relay` since the log does not tell it, in other
    /// games so that the log need not be replayed from its beginning. `None`: it always is.
    fn snapshot(&self) -> Option<Box<RawValue>> {
        None
    }

    /// Whether `snapshot` gives something else than when a `relay` game was last asked.
    fn snapshot_changed(&mut self) -> bool {
        false
    }

    /// Takes back what `snapshot` gave. An error says why that is none; nothing has changed then.
    fn restore(&mut self, _snapshot: &RawValue) -> Result<(), String> {
        Err("the game gives no snapshots".into())
    }

    /// Why the rules can't go on, if they can't: the match is over then, as [`Self::outcome`] says,
    /// and nothing changes any more.
    fn failure(&self) -> Option<String> {
        None
    }

    /// Something else happens, now or, if it is `replayed`, in another life of the match: what the rules
    /// may take for it, if there is a bound, begins anew.
    fn refuel(&mut self, _replayed: bool) {}

    /// What the rules have to say to whoever runs the server, since they were last asked.
    fn take_lines(&mut self) -> Vec<String> {
        Vec::new()
    }
}

/// A game written with types of its own, itself one of them; [`Typed`] makes a [`Game`] of it.
pub trait Rules: Serialize + DeserializeOwned + Send + 'static {
    /// What a player can ask for.
    type Command: DeserializeOwned;
    /// What can happen.
    type Event: Serialize + DeserializeOwned;
    /// What somebody sees.
    type View: Serialize;

    /// As [`Game::has_one_view`].
    const ONE_VIEW: bool = false;

    /// As [`Game::decide`].
    fn decide(&self, seat: Seat, command: Self::Command) -> Result<Vec<Self::Event>, Refusal>;
    /// As [`Game::apply`].
    fn apply(&mut self, seat: Option<Seat>, event: Self::Event);
    /// As [`Game::tick`].
    fn tick(&mut self) {}
    /// As [`Game::leave`].
    fn leave(&mut self, seat: Seat, why: Leaving);
    /// As [`Game::audience`].
    fn audience(&self, _seat: Option<Seat>, _event: &Self::Event) -> Audience {
        Audience::Everyone
    }
    /// As [`Game::view`].
    fn view(&self, viewer: Viewer) -> Self::View;
    /// As [`Game::outcome`].
    fn outcome(&self) -> Option<Outcome>;
}

/// Carries typed [`Rules`] over to JSON.
pub struct Typed<R>(pub R);

impl<R: Rules> Game for Typed<R> {
    fn decide(&self, seat: Seat, command: &RawValue) -> Result<Vec<Box<RawValue>>, Refusal> {
        let command = serde_json::from_str(command.get())
            .map_err(|error| Refusal::BadCommand(error.to_string()))?;
        let events = self.0.decide(seat, command)?;
        Ok(events.iter().map(to_raw).collect())
    }

    fn apply(&mut self, seat: Option<Seat>, event: &RawValue) {
        // Events come from `decide`, at the latest by way of the store's checked log.
        match serde_json::from_str(event.get()) {
            Ok(event) => self.0.apply(seat, event),
            Err(error) => debug_assert!(false, "an event that no rule made: {error}"),
        }
    }

    fn tick(&mut self) {
        self.0.tick();
    }

    fn leave(&mut self, seat: Seat, why: Leaving) {
        self.0.leave(seat, why);
    }

    fn audience(&self, seat: Option<Seat>, event: &RawValue) -> Audience {
        serde_json::from_str(event.get())
            .map_or(Audience::Only(SeatSet::default()), |event| self.0.audience(seat, &event))
    }

    fn view(&self, viewer: Viewer) -> Box<RawValue> {
        to_raw(&self.0.view(viewer))
    }

    fn has_one_view(&self) -> bool {
        R::ONE_VIEW
    }

    fn outcome(&self) -> Option<Outcome> {
        self.0.outcome()
    }

    fn snapshot(&self) -> Option<Box<RawValue>> {
        Some(to_raw(&self.0))
    }

    fn restore(&mut self, snapshot: &RawValue) -> Result<(), String> {
        self.0 = serde_json::from_str(snapshot.get()).map_err(|error| error.to_string())?;
        Ok(())
    }
}

/// A value of a game's own types as JSON.
fn to_raw<T: Serialize>(value: &T) -> Box<RawValue> {
    serde_json::value::to_raw_value(value)
        .expect("a game's types have string keys and finite numbers")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn options(json: &Value) -> Map<String, Value> {
        json.as_object().unwrap().clone()
    }

    #[test]
    fn players_are_taken_out_of_the_options_and_kept_within_bounds() {
        let catalog = Catalog::new(None, Vec::new());
        let pairs = catalog.find("pairs").unwrap();
        let pairs = pairs.info();
        let set = setup(pairs, options(&json!({"players": 8, "pairs": 3})), 5).unwrap();
        assert_eq!((set.players, set.seed), (8, 5));
        assert_eq!(set.options, options(&json!({"pairs": 3})));
        assert_eq!(setup(pairs, Map::new(), 0).unwrap().players, 2);
        for bad in [json!(1), json!(9), json!(258), json!(2.0), json!("2"), json!(null), json!([2])]
        {
            let refused = setup(pairs, options(&json!({ "players": bad })), 0).unwrap_err();
            assert_eq!(refused.field, "players");
            let detail = format!("got {bad}; it takes a whole number from 2 to 8");
            assert_eq!(refused.detail, detail);
        }
    }

    #[test]
    fn a_refused_option_is_named_and_not_shown_at_length() {
        let catalog = Catalog::new(None, Vec::new());
        let pairs = catalog.find("pairs").unwrap();
        let refused = |json: Value| {
            let setup = setup(pairs.info(), options(&json), 0).unwrap();
            match pairs.start(&setup) {
                Err(NoStart::BadOption(bad)) => bad,
                other => panic!("{:?}", other.err()),
            }
        };
        let unknown = refused(json!({"cards": 3}));
        assert_eq!(unknown.field, "cards");
        assert_eq!(unknown.detail, "the game has no such option; it takes players, pairs");
        let long = refused(json!({"pairs": "x".repeat(10_000)}));
        assert_eq!(long.field, "pairs");
        assert!(long.detail.len() < 200, "{}", long.detail);
        assert_eq!(refused(json!({"pairs": 33})).field, "pairs");
    }

    #[test]
    fn audiences_are_as_they_say() {
        let named = SeatSet::default().with(Seat(1)).with(Seat(63)).with(Seat(64));
        for (audience, seat_0, seat_1, spectator) in [
            (Audience::Everyone, true, true, true),
            (Audience::Except(Seat(0)), false, true, true),
            (Audience::Only(named), false, true, false),
        ] {
            assert_eq!(audience.includes(Viewer::Seat(Seat(0))), seat_0);
            assert_eq!(audience.includes(Viewer::Seat(Seat(1))), seat_1);
            assert_eq!(audience.includes(Viewer::Spectator), spectator);
        }
        assert!(!named.contains(Seat(64)) && !named.without(Seat(63)).contains(Seat(63)));
    }
}
