//! What a match's log makes of its rules: the state that players should have seen.

use std::collections::BTreeMap;
use std::sync::Arc;

use gameserver::games::wasm::{Loaded, Plugin};
use gameserver::games::{Catalog, Game, GameType, Leaving, Outcome, Seat, Viewer, setup};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// A match and its log as the database has them.
#[derive(Clone, Default)]
pub struct Stored {
    /// The rules that it began with; `None` for a match that is not there.
    pub rules: Option<Arc<dyn GameType>>,
    pub seed: u64,
    pub options: String,
    pub events: Vec<StoredEvent>,
}

/// One row of the log.
#[derive(Clone)]
pub struct StoredEvent {
    pub seq: u64,
    pub seat: Option<u8>,
    /// The engine's own, or the game's.
    pub structural: bool,
    pub event: String,
}

/// One step of a game that the clock moves.
#[derive(Deserialize)]
struct Step {
    tick: u64,
    inputs: Vec<Input>,
}

#[derive(Deserialize)]
struct Input {
    seat: Seat,
    input: Box<RawValue>,
}

/// All matches.
pub fn read(client: &mut postgres::Client) -> BTreeMap<String, Stored> {
    let rules = read_rules(client);
    let mut matches = BTreeMap::new();
    let sql = "SELECT id::text, game, game_version, seed, options FROM matches";
    for row in client.query(sql, &[]).unwrap() {
        let stored = Stored {
            rules: rules.get(&(row.get(1), row.get(2))).cloned(),
            seed: row.get::<_, i64>(3).cast_unsigned(),
            options: row.get(4),
            events: Vec::new(),
        };
        matches.insert(row.get::<_, String>(0), stored);
    }
    let sql = "SELECT match_id::text, seq, seat, structural, event FROM match_events ORDER BY seq";
    for row in client.query(sql, &[]).unwrap() {
        let event = StoredEvent {
            seq: row.get::<_, i64>(1).cast_unsigned(),
            seat: row.get::<_, Option<i16>>(2).map(|seat| u8::try_from(seat).unwrap()),
            structural: row.get(3),
            event: row.get(4),
        };
        matches.get_mut(row.get::<_, &str>(0)).unwrap().events.push(event);
    }
    matches
}

/// Of each game and version that was played, the rules: those of plugins are in the database.
fn read_rules(client: &mut postgres::Client) -> BTreeMap<(String, String), Arc<dyn GameType>> {
    let catalog = Catalog::new(None, Vec::new());
    let sql = "SELECT DISTINCT game, game_version, code
        FROM matches LEFT JOIN modules ON version = game_version";
    let rules = client.query(sql, &[]).unwrap().into_iter().map(|row| {
        let (game, version): (String, String) = (row.get(0), row.get(1));
        let rules: Arc<dyn GameType> = match row.get::<_, Option<&[u8]>>(2) {
            Some(code) => Arc::new(Loaded(Arc::new(Plugin::load(&game, code).unwrap()))),
            None => catalog.find_version(&game, &version).expect("the rules of a match"),
        };
        assert_eq!(rules.info().version, version, "a module is kept under its own version");
        ((game, version), rules)
    });
    rules.collect()
}

impl Stored {
    /// What a seat, or a spectator, sees of the state after the event `seq`, and, where the clock
    /// moves it, the step `tick`.
    pub fn view(&self, seat: Option<u64>, seq: u64, tick: Option<u64>) -> Value {
        let viewer =
            seat.map_or(Viewer::Spectator, |seat| Viewer::Seat(Seat(u8::try_from(seat).unwrap())));
        serde_json::from_str(self.played(seq, tick).view(viewer).get()).unwrap()
    }

    /// How it ends by its rules, after so many events and steps.
    pub fn outcome(&self, seq: u64, tick: Option<u64>) -> Option<Outcome> {
        self.played(seq, tick).outcome()
    }

    fn played(&self, seq: u64, tick: Option<u64>) -> Box<dyn Game> {
        let rules = self.rules.as_ref().expect("a match that is there");
        let options = serde_json::from_str(&self.options).unwrap();
        let setup = setup(rules.info(), options, self.seed).unwrap();
        let mut game = rules.start(&setup).unwrap();
        let mut running = false;
        let mut steps = 0;
        let mut step_to = |tick, game: &mut dyn Game| {
            for _ in steps..tick {
                game.refuel(true);
                game.tick();
            }
            steps = steps.max(tick);
        };
        for event in self.events.iter().filter(|event| event.seq <= seq) {
            let seat = event.seat.map(Seat);
            game.refuel(true);
            if !event.structural && tick.is_some() {
                let step: Step = serde_json::from_str(&event.event).unwrap();
                step_to(step.tick - 1, &mut *game);
                game.refuel(true);
                step.inputs.iter().for_each(|input| game.apply(Some(input.seat), &input.input));
                continue;
            }
            if !event.structural {
                game.apply(seat, serde_json::from_str(&event.event).unwrap());
                continue;
            }
            let structural: Value = serde_json::from_str(&event.event).unwrap();
            running |= structural.get("started").is_some();
            if let Some(left) = structural.get("left").filter(|_| running) {
                step_to(left["tick"].as_u64().unwrap_or(0), &mut *game);
                let why: Leaving = serde_json::from_value(left["reason"].clone()).unwrap();
                game.leave(seat.unwrap(), why);
            }
        }
        step_to(tick.unwrap_or(0), &mut *game);
        game.refuel(true);
        game
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(seq: u64, seat: Option<u8>, structural: bool, event: &Value) -> StoredEvent {
        StoredEvent { seq, seat, structural, event: event.to_string() }
    }

    #[test]
    fn a_log_is_played_as_far_as_asked() {
        let stored = Stored {
            rules: Catalog::new(None, Vec::new()).find("tictactoe"),
            seed: 1,
            options: "{}".into(),
            events: vec![
                event(1, Some(0), true, &json!({"joined": {"seat": 0}})),
                event(2, Some(1), true, &json!({"joined": {"seat": 1}})),
                event(3, None, true, &json!({"started": {"players": 2}})),
                event(4, Some(0), false, &json!({"placed": 4})),
                event(5, Some(1), false, &json!({"placed": 0})),
                event(6, Some(1), true, &json!({"left": {"seat": 1, "reason": "resigned"}})),
            ],
        };
        let board = [None, None, None, None, Some(0), None, None, None, None];
        let after_four = json!({"board": board, "turn": 1});
        assert_eq!(stored.view(Some(0), 4, None), after_four);
        let mut after_five = after_four.clone();
        after_five["board"][0] = json!(1);
        after_five["turn"] = json!(0);
        assert_eq!(stored.view(None, 5, None), after_five);
        assert_eq!(stored.view(None, 6, None)["turn"], Value::Null);
    }
}
