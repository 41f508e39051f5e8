//! What a match's log makes of its rules: the state that players should have seen.

use std::collections::BTreeMap;

use gameserver::games::{Catalog, Game, Leaving, Seat, Viewer, setup};
use serde_json::Value;

/// A match and its log as the database has them.
#[derive(Clone, Default)]
pub struct Stored {
    pub game: String,
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

/// All matches.
pub fn read(client: &mut postgres::Client) -> BTreeMap<String, Stored> {
    let mut matches = BTreeMap::new();
    for row in client.query("SELECT id::text, game, seed, options FROM matches", &[]).unwrap() {
        let stored = Stored {
            game: row.get(1),
            seed: row.get::<_, i64>(2).cast_unsigned(),
            options: row.get(3),
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

impl Stored {
    /// What a seat, or a spectator, sees of the state after the event `seq`.
    pub fn view(&self, seat: Option<u64>, seq: u64) -> Value {
        let viewer =
            seat.map_or(Viewer::Spectator, |seat| Viewer::Seat(Seat(u8::try_from(seat).unwrap())));
        serde_json::from_str(self.played(seq).view(viewer).get()).unwrap()
    }

    fn played(&self, seq: u64) -> Box<dyn Game> {
        let catalog = Catalog::new(None, Vec::new());
        let rules = catalog.find(&self.game).unwrap();
        let options = serde_json::from_str(&self.options).unwrap();
        let setup = setup(rules.info(), options, self.seed).unwrap();
        let mut game = rules.start(&setup).unwrap();
        let mut running = false;
        for event in self.events.iter().filter(|event| event.seq <= seq) {
            let seat = event.seat.map(Seat);
            if !event.structural {
                game.apply(seat, serde_json::from_str(&event.event).unwrap());
                continue;
            }
            let structural: Value = serde_json::from_str(&event.event).unwrap();
            running |= structural.get("started").is_some();
            if let Some(left) = structural.get("left").filter(|_| running) {
                let why: Leaving = serde_json::from_value(left["reason"].clone()).unwrap();
                game.leave(seat.unwrap(), why);
            }
        }
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
            game: "tictactoe".into(),
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
        assert_eq!(stored.view(Some(0), 4), after_four);
        let mut after_five = after_four.clone();
        after_five["board"][0] = json!(1);
        after_five["turn"] = json!(0);
        assert_eq!(stored.view(None, 5), after_five);
        assert_eq!(stored.view(None, 6)["turn"], Value::Null);
    }
}
