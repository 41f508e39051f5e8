//! What holds in every match, whatever is played: found out with moves by chance.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::{Audience, Catalog, Game, Leaving, Outcome, Refusal, SEATS_MAX, Seat, Viewer, setup};

/// What somebody does, and what became of it.
#[derive(Clone, Debug)]
enum Happening {
    Event(Seat, String),
    Left(Seat, Leaving),
    Step,
}

/// A match and all that has happened in it.
struct Played {
    game: Box<dyn Game>,
    players: u8,
    log: Vec<Happening>,
}

/// A wish by chance: who, what kind, and a number for it.
type Wish = (u8, u8, u8);

fn wishes() -> impl Strategy<Value = Vec<Wish>> {
    prop::collection::vec(any::<Wish>(), 0..120)
}

fn start(game: &str, options: &Value, seed: u64) -> Played {
    let catalog = Catalog::new(None, Vec::new());
    let game = catalog.find(game).unwrap();
    let Value::Object(options) = options.clone() else { panic!("{options}") };
    let setup = setup(game.info(), options, seed).unwrap();
    Played { game: game.start(&setup).unwrap(), players: setup.players, log: Vec::new() }
}

fn raw(json: &Value) -> Box<RawValue> {
    RawValue::from_string(json.to_string()).unwrap()
}

fn parsed(json: &RawValue) -> Value {
    serde_json::from_str(json.get()).unwrap()
}

impl Played {
    fn viewers(&self) -> impl Iterator<Item = Viewer> {
        (0..self.players).map(|seat| Viewer::Seat(Seat(seat))).chain([Viewer::Spectator])
    }

    /// All that anybody can see of the state.
    fn views(&self) -> Vec<Value> {
        self.viewers().map(|viewer| parsed(&self.game.view(viewer))).collect()
    }

    fn view(&self) -> Value {
        parsed(&self.game.view(Viewer::Spectator))
    }

    fn turn(&self) -> Option<Seat> {
        let turn = self.view()["turn"].as_u64()?;
        u8::try_from(turn).ok().map(Seat)
    }

    /// A command, whose events happen if it is none to refuse; `told` looks on after each.
    fn command(
        &mut self,
        seat: Seat,
        command: &RawValue,
        mut told: impl FnMut(&Self, &Value),
    ) -> Result<(), Refusal> {
        let before = self.views();
        let events = self.game.decide(seat, command);
        assert_eq!(self.views(), before, "a decision changes nothing");
        let events = events?;
        assert!(!events.is_empty());
        for event in events {
            self.game.apply(Some(seat), &event);
            self.log.push(Happening::Event(seat, event.get().to_owned()));
            told(self, &parsed(&event));
        }
        Ok(())
    }

    fn leave(&mut self, seat: Seat, why: Leaving) {
        self.game.leave(seat, why);
        self.log.push(Happening::Left(seat, why));
    }

    fn tick(&mut self) {
        self.game.tick();
        self.log.push(Happening::Step);
    }

    /// What the log makes of a match that starts anew.
    fn replay_into(&self, mut fresh: Self) -> Self {
        for happening in &self.log {
            match happening {
                Happening::Left(seat, why) => fresh.game.leave(*seat, *why),
                Happening::Step => fresh.game.tick(),
                Happening::Event(seat, event) => {
                    let event = RawValue::from_string(event.clone()).unwrap();
                    fresh.game.apply(Some(*seat), &event);
                }
            }
        }
        fresh
    }
}

fn check_outcome(played: &Played, outcome: &Outcome) {
    assert_eq!(played.turn(), None);
    assert_eq!(outcome.draw, outcome.winners.is_empty());
    assert!(outcome.winners.is_sorted() && outcome.winners.len() <= 1);
}

/// Who follows `pairs` from outside, as the page's `boards.js` does: by events alone.
struct Follower {
    cards: Vec<Option<u64>>,
    owner: Vec<Option<u64>>,
    scores: Vec<u64>,
    turn: u64,
    gone: Vec<u64>,
    /// Every card that was ever turned up.
    known: BTreeMap<usize, u64>,
}

impl Follower {
    fn new(cards: usize, players: u8) -> Self {
        Self {
            cards: vec![None; cards],
            owner: vec![None; cards],
            scores: vec![0; usize::from(players)],
            turn: 0,
            gone: Vec::new(),
            known: BTreeMap::new(),
        }
    }

    fn apply(&mut self, event: &Value) {
        let place = |value: &Value| usize::try_from(value.as_u64().unwrap()).unwrap();
        let places =
            |value: &Value| value.as_array().unwrap().iter().map(place).collect::<Vec<_>>();
        if let Some(flipped) = event.get("flipped") {
            let (place, card) = (place(flipped), event["card"].as_u64().unwrap());
            assert_eq!(*self.known.entry(place).or_insert(card), card, "a card never changes");
            self.cards[place] = Some(card);
        } else if let Some(kept) = event.get("kept") {
            for place in places(kept) {
                self.owner[place] = Some(self.turn);
            }
            self.scores[usize::try_from(self.turn).unwrap()] += 1;
        } else {
            for place in places(&event["hidden"]) {
                self.cards[place] = None;
            }
            self.pass();
        }
    }

    fn leave(&mut self, seat: Seat) {
        self.gone.push(u64::from(seat.0));
        if self.turn == u64::from(seat.0) {
            for (card, owner) in self.cards.iter_mut().zip(&self.owner) {
                *card = card.filter(|_| owner.is_some());
            }
            self.pass();
        }
    }

    fn pass(&mut self) {
        let players = self.scores.len() as u64;
        let mut order = (1..=players).map(|step| (self.turn + step) % players);
        self.turn = order.find(|seat| !self.gone.contains(seat)).unwrap_or(self.turn);
    }

    /// Nobody sees more or less than this.
    fn check(&self, played: &Played) {
        let turn = played.game.outcome().is_none().then_some(self.turn);
        let expected = json!({
            "cards": self.cards,
            "owner": self.owner,
            "scores": self.scores,
            "turn": turn,
        });
        for view in played.views() {
            assert_eq!(view, expected);
        }
    }
}

/// Plays `pairs` with moves by chance, most of them legal, and checks what everyone sees.
fn play_pairs(players: u8, pairs: u8, seed: u64, wishes: &[Wish]) -> Played {
    let mut played = start("pairs", &json!({"players": players, "pairs": pairs}), seed);
    let mut follower = Follower::new(2 * usize::from(pairs), players);
    follower.check(&played);
    for (who, kind, what) in wishes {
        let Some(turn) = played.turn() else { break };
        let any_seat = Seat(who % players);
        if *kind < 4 && !follower.gone.contains(&u64::from(any_seat.0)) {
            let why = if what % 2 == 0 { Leaving::Resigned } else { Leaving::Timeout };
            played.leave(any_seat, why);
            follower.leave(any_seat);
        } else {
            let seat = if *kind < 32 { any_seat } else { turn };
            let place = what % (2 * pairs + 1);
            let flip = raw(&json!({ "flip": place }));
            let legal =
                seat == turn && follower.cards.get(usize::from(place)).is_some_and(Option::is_none);
            let done = played.command(seat, &flip, |played, event| {
                follower.apply(event);
                follower.check(played);
            });
            assert_eq!(done.is_ok(), legal, "{done:?}");
        }
        follower.check(&played);
    }
    if let Some(outcome) = played.game.outcome() {
        check_outcome(&played, &outcome);
        let all = follower.scores.iter().sum::<u64>() == u64::from(pairs);
        assert_eq!(outcome.reason == "completed", all);
    }
    played
}

/// What a watcher of `arena` makes of what is seen step by step: which cells are walls, one by one.
struct Floor {
    walls: BTreeMap<[i64; 2], usize>,
    view: Value,
}

impl Floor {
    fn new(view: Value) -> Self {
        let mut floor = Self { walls: BTreeMap::new(), view };
        for seat in 0..floor.riding().len() {
            floor.walls.extend(floor.head(seat).map(|head| (head, seat)));
        }
        floor
    }

    fn riding(&self) -> Vec<bool> {
        serde_json::from_value(self.view["riding"].clone()).unwrap()
    }

    fn head(&self, seat: usize) -> Option<[i64; 2]> {
        serde_json::from_value(self.view["heads"][seat].clone()).unwrap()
    }

    fn free(&mut self, seat: usize) {
        self.walls.retain(|_, owner| *owner != seat);
    }

    /// One step later: each rider stands still before the start, or rides on by a cell, or is out
    /// because there was something ahead.
    fn step(&mut self, now: Value) {
        if now["round"] != self.view["round"] {
            *self = Self::new(now);
            return;
        }
        let (before, after) = (Self { walls: self.walls.clone(), view: self.view.take() }, now);
        let ahead = |seat: usize| {
            let [x, y] = before.head(seat).unwrap();
            match after["headings"][seat].as_str().unwrap() {
                "up" => [x, y - 1],
                "right" => [x + 1, y],
                "down" => [x, y + 1],
                _ => [x - 1, y],
            }
        };
        self.view = after.clone();
        let riding: Vec<usize> =
            (0..before.riding().len()).filter(|seat| before.riding()[*seat]).collect();
        let size = after["size"].as_i64().unwrap();
        for seat in &riding {
            let (head, next) = (self.head(*seat).unwrap(), ahead(*seat));
            let inside = next.iter().all(|place| (0..size).contains(place));
            let met = riding.iter().any(|other| other != seat && ahead(*other) == next);
            let blocked = !inside || met || before.walls.contains_key(&next);
            if !self.riding()[*seat] {
                assert!(blocked, "seat {seat} is out at {next:?}: {after}");
                self.free(*seat);
            } else if head == next {
                assert!(!blocked, "seat {seat} rides through {next:?}: {after}");
                assert_eq!(self.walls.insert(head, *seat), None);
            } else {
                assert_eq!(Some(head), before.head(*seat));
            }
        }
    }
}

/// Plays `arena` with turns by chance, and checks each step.
fn ride(players: u8, rounds: u8, wishes: &[Wish]) -> Played {
    let options = json!({"players": players, "rounds": rounds, "size": 40});
    let mut played = start("arena", &options, 0);
    let mut floor = Floor::new(played.view());
    // Through the countdown, and then a turn now and then.
    for (who, kind, what) in wishes.iter().flat_map(|wish| [*wish; 8]) {
        let seat = Seat(who % players);
        if kind == 0 && !floor.view["heads"][seat.index()].is_null() {
            played.leave(seat, Leaving::Timeout);
            floor.free(seat.index());
            floor.view = played.view();
        } else if kind < 64 {
            let to = ["up", "right", "down", "left"][usize::from(what % 4)];
            let riding = floor.riding()[seat.index()];
            let done = played.command(seat, &raw(&json!({ "turn": to })), |_, _| ());
            assert_eq!(done.is_ok(), riding);
        }
        played.tick();
        floor.step(played.view());
        if played.game.outcome().is_some() {
            break;
        }
    }
    if let Some(outcome) = played.game.outcome() {
        check_outcome(&played, &outcome);
        let before = played.views();
        played.game.tick();
        assert_eq!(played.views(), before, "an end is for good");
    }
    played
}

/// Any JSON, now and then deeper or stranger than a game likes.
fn json_values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 40, 5, |inner| {
        let name = prop_oneof![any::<String>(), field_names()];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(name, inner, 0..5)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn field_names() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["place", "flip", "turn", "send", "state", "to", "placed", "kept"])
        .prop_map(str::to_owned)
}

/// Objects that look like commands.
fn commands() -> impl Strategy<Value = Value> {
    let value = prop_oneof![json_values(), (0..70_u8).prop_map(Value::from)];
    prop_oneof![
        json_values(),
        prop::collection::btree_map(field_names(), value, 1..3)
            .prop_map(|fields| Value::Object(fields.into_iter().collect())),
    ]
}

proptest! {
    #[test]
    fn pairs_shows_what_was_turned_up_and_nothing_else(
        players in 2..=4_u8, pairs in 2..=5_u8, seed: u64, wishes in wishes(),
    ) {
        play_pairs(players, pairs, seed, &wishes);
    }

    #[test]
    fn pairs_can_be_replayed(
        players in 2..=4_u8, pairs in 2..=5_u8, seed: u64, wishes in wishes(),
    ) {
        let played = play_pairs(players, pairs, seed, &wishes);
        let options = json!({"players": players, "pairs": pairs});
        let again = played.replay_into(start("pairs", &options, seed));
        prop_assert_eq!(again.views(), played.views());
        prop_assert_eq!(again.game.outcome(), played.game.outcome());
    }

    #[test]
    fn arena_keeps_its_rules_and_can_be_replayed(
        players in 2..=8_u8, rounds in 1..=2_u8, wishes in wishes(),
    ) {
        let played = ride(players, rounds, &wishes);
        let options = json!({"players": players, "rounds": rounds, "size": 40});
        let again = played.replay_into(start("arena", &options, 1));
        prop_assert_eq!(again.views(), played.views());
        prop_assert_eq!(again.game.outcome(), played.game.outcome());
    }

    #[test]
    fn tictactoe_keeps_its_rules_and_can_be_replayed(wishes in wishes()) {
        let mut played = start("tictactoe", &json!({}), 0);
        let mut marks = Vec::new();
        for (who, kind, cell) in wishes {
            let (seat, cell) = (Seat(who % 2), cell % 10);
            if kind == 0 {
                played.leave(seat, Leaving::Resigned);
                break;
            }
            let turn = played.turn();
            let free = cell < 9 && !marks.contains(&cell);
            let done = played.command(seat, &raw(&json!({ "place": cell })), |_, event| {
                assert_eq!(*event, json!({ "placed": cell }));
                marks.push(cell);
            });
            prop_assert_eq!(done.is_ok(), turn == Some(seat) && free);
            let over = played.game.outcome().is_some();
            let next = u8::try_from(marks.len() % 2).unwrap();
            prop_assert_eq!(played.turn(), (!over).then_some(Seat(next)));
        }
        let board = played.view()["board"].clone();
        let of = |seat: u64| board.as_array().unwrap().iter().filter(|cell| **cell == seat).count();
        prop_assert_eq!((of(0), of(1)), (marks.len().div_ceil(2), marks.len() / 2));
        match played.game.outcome() {
            Some(outcome) => check_outcome(&played, &outcome),
            None => prop_assert!(marks.len() < 9),
        }
        let again = played.replay_into(start("tictactoe", &json!({}), 1));
        prop_assert_eq!(again.views(), played.views());
        prop_assert_eq!(again.game.outcome(), played.game.outcome());
    }

    #[test]
    fn no_command_makes_a_game_panic(
        commands in prop::collection::vec((0..4_u8, commands()), 0..20),
    ) {
        for game in ["tictactoe", "pairs", "arena", "relay"] {
            let mut played = start(game, &json!({"players": 2}), 0);
            for (seat, command) in &commands {
                let seat = Seat(seat % played.players);
                let before = played.views();
                if played.command(seat, &raw(command), |_, _| ()).is_err() {
                    prop_assert_eq!(played.views(), before);
                }
            }
        }
    }

    #[test]
    fn relay_passes_on_what_it_gets(
        value in json_values(),
        field in prop::sample::select(vec!["send", "state"]),
        to in prop::option::of(prop::collection::vec(0..SEATS_MAX, 0..SEATS_MAX.into())),
        author in 0..SEATS_MAX,
    ) {
        let author = Seat(author);
        let mut command = Map::new();
        command.insert(field.into(), value);
        let to = to.filter(|_| field == "send");
        if let Some(to) = &to {
            command.insert("to".into(), json!(to));
        }
        let command = raw(&Value::Object(command));
        let mut played = start("relay", &json!({}), 0);
        let event = played.game.decide(author, &command).unwrap().remove(0);
        prop_assert_eq!(parsed(&event), parsed(&command));
        let audience = played.game.audience(Some(author), &event);
        for viewer in played.viewers() {
            let told = match (viewer, &to) {
                (Viewer::Seat(seat), _) if seat == author => false,
                (Viewer::Seat(Seat(seat)), Some(to)) => to.contains(&seat),
                (Viewer::Spectator, to) => to.is_none(),
                (Viewer::Seat(_), None) => true,
            };
            prop_assert_eq!(audience.includes(viewer), told, "{:?}", viewer);
        }
        prop_assert_eq!(matches!(audience, Audience::Only(_)), to.is_some());
        played.game.apply(Some(author), &event);
        let expected = if field == "state" { parsed(&command) } else { json!({"state": null}) };
        prop_assert_eq!(played.view(), expected);
    }
}
