//! The same rules as a plugin and as a built-in game give the same matches, byte for byte: events,
//! views, ends and refusals. Only the words for what is no command at all are a module's own.

use std::fs;
use std::sync::{Arc, LazyLock};

use gameserver::games::wasm::{Loaded, Plugin};
use gameserver::games::{Catalog, Game, GameType, Leaving, Mode, Refusal, Seat, Viewer, setup};
use proptest::prelude::*;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::games::{PLUGINS, file, folder};
use crate::raw;

/// Built-in games, each with the plugin that has its rules.
static GAMES: LazyLock<[(&str, Loaded); PLUGINS.len()]> =
    LazyLock::new(|| PLUGINS.map(|(plugin, built_in)| (built_in, load(plugin))));

fn load(name: &str) -> Loaded {
    let code = fs::read(file(folder(), name)).unwrap();
    Loaded(Arc::new(Plugin::load(name, &code).unwrap()))
}

/// A wish by chance: who, what kind, and a number for it.
type Wish = (u8, u8, u8);

/// Commands that no game expects.
const JUNK: &[&str] = &[
    "null",
    "7",
    "\"place\"",
    "[]",
    "{}",
    r#"{"place":-1}"#,
    r#"{"place":1.5}"#,
    r#"{"place":"1"}"#,
    r#"{"flip":300}"#,
    r#"{"flip":null}"#,
    r#"{"turn":"UP"}"#,
    r#"{"turn":["up"]}"#,
    r#"{"place":1,"flip":1,"turn":"up"}"#,
    r#"{"place":{"a":[1,"\"\\\u0000"]}}"#,
];

/// A match, played twice.
struct Pair {
    built_in: Box<dyn Game>,
    plugin: Box<dyn Game>,
    players: u8,
    mode: Mode,
}

impl Pair {
    fn start(built_in: &str, options: &Value, seed: u64) -> Self {
        let (_, plugin) = GAMES.iter().find(|(name, _)| *name == built_in).unwrap();
        let built_in = Catalog::new(None, Vec::new()).find(built_in).unwrap();
        let Value::Object(options) = options.clone() else { panic!("{options}") };
        let info = built_in.info();
        let setup = setup(info, options, seed).unwrap();
        let start =
            |game: &dyn GameType| game.start(&setup).unwrap_or_else(|why| panic!("{why:?}"));
        Self {
            players: setup.players,
            mode: info.mode,
            plugin: start(plugin),
            built_in: start(&*built_in),
        }
    }

    fn both(&mut self) -> [&mut dyn Game; 2] {
        [&mut *self.built_in, &mut *self.plugin]
    }

    /// The events of a command, if both take it.
    fn decide(&mut self, seat: Seat, command: &RawValue) -> Vec<Box<RawValue>> {
        let decided = self.both().map(|game| match game.decide(seat, command) {
            // Which is wrong is said in each one's own words.
            Err(Refusal::BadCommand(_)) => Err(Refusal::BadCommand(String::new())),
            decided => decided,
        });
        let [built_in, plugin] = decided;
        assert_eq!(format!("{built_in:?}"), format!("{plugin:?}"), "{command}");
        built_in.unwrap_or_default()
    }

    fn apply(&mut self, seat: Seat, event: &RawValue) {
        for game in self.both() {
            game.apply(Some(seat), event);
        }
        let [built_in, plugin] = self.both().map(|game| game.audience(Some(seat), event));
        assert_eq!(built_in, plugin, "{event}");
    }

    fn check(&mut self) {
        self.both().into_iter().for_each(|game| game.refuel(false));
        let seats = (0..self.players).map(|seat| Viewer::Seat(Seat(seat)));
        for viewer in seats.chain([Viewer::Spectator]) {
            let [built_in, plugin] = self.both().map(|game| game.view(viewer));
            assert_eq!(built_in.get(), plugin.get(), "{viewer:?}");
        }
        let [built_in, plugin] = self.both().map(|game| game.outcome());
        assert_eq!(built_in, plugin);
        assert_eq!(self.plugin.failure(), None);
    }

    /// Plays wishes; `command` makes one of a number.
    fn play(&mut self, wishes: &[Wish], command: impl Fn(u8) -> Value) {
        self.check();
        let mut gone = Vec::new();
        for (who, kind, what) in wishes {
            let seat = Seat(who % self.players);
            self.both().into_iter().for_each(|game| game.refuel(false));
            if self.built_in.outcome().is_some() {
                break;
            }
            if *kind < 4 && !gone.contains(&seat) {
                let why = if what % 2 == 0 { Leaving::Resigned } else { Leaving::Timeout };
                self.both().into_iter().for_each(|game| game.leave(seat, why));
                gone.push(seat);
            } else if !gone.contains(&seat) {
                let junk = raw(JUNK[usize::from(*what) % JUNK.len()]);
                let command = if *kind < 24 { junk } else { raw(&command(*what).to_string()) };
                for event in self.decide(seat, &command) {
                    self.apply(seat, &event);
                }
            }
            if self.mode == Mode::Ticks {
                self.both().into_iter().for_each(Game::tick);
            }
            self.check();
        }
    }
}

fn wishes(most: usize) -> impl Strategy<Value = Vec<Wish>> {
    prop::collection::vec(any::<Wish>(), 0..most)
}

#[test]
fn what_is_told_of_them_is_the_same() {
    let catalog = Catalog::new(None, Vec::new());
    for (built_in, plugin) in &*GAMES {
        let built_in = catalog.find(built_in).unwrap();
        let (own, other) = (built_in.info(), plugin.info());
        assert_eq!(
            (own.min_players, own.max_players, own.default_players, own.mode, own.tick_hz),
            (
                other.min_players,
                other.max_players,
                other.default_players,
                other.mode,
                other.tick_hz
            )
        );
        assert_eq!(own.grace_seconds, other.grace_seconds);
        // The same options, too, in the same words.
        for options in [json!({"pairs": 40}), json!({"no": 1}), json!({"pairs": "x"}), json!({})] {
            let Value::Object(options) = options else { continue };
            let Ok(setup) = setup(own, options, 1) else { continue };
            let [own, other] = [built_in.start(&setup), plugin.start(&setup)].map(Result::err);
            assert_eq!(own, other);
        }
        assert!(plugin.start(&setup(other, Map::new(), 1).unwrap()).is_ok());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn noughts_is_tictactoe(seed: u64, wishes in wishes(40)) {
        let mut pair = Pair::start("tictactoe", &json!({}), seed);
        pair.play(&wishes, |what| json!({ "place": what % 10 }));
    }

    #[test]
    fn concentration_is_pairs(
        seed: u64,
        players in 2..=8_u8,
        pairs in 2..=32_u8,
        wishes in wishes(150),
    ) {
        let options = json!({"players": players, "pairs": pairs});
        let mut pair = Pair::start("pairs", &options, seed);
        pair.play(&wishes, |what| json!({ "flip": what % (2 * pairs + 1) }));
    }

    #[test]
    fn cycles_is_arena(seed: u64, players in 2..=8_u8, wishes in wishes(200)) {
        let mut pair = Pair::start("arena", &json!({ "players": players }), seed);
        let ways = ["up", "down", "left", "right"];
        pair.play(&wishes, |what| json!({ "turn": ways[usize::from(what) % ways.len()] }));
    }
}
