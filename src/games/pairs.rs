//! `pairs`: cards lie face down, and whoever turns up two alike keeps them.
//!
//! The cards are dealt from the match's seed, so this state knows them all; nobody else may. What
//! goes out is made in two places only: a flip's event tells the card that it turns up, and
//! [`Pairs::view`] those that lie open.

use serde::{Deserialize, Serialize};

use super::{
    BadOption, Game, GameInfo, Leaving, Mode, Outcome, Refusal, Rng, Rules, Seat, SeatSet, Setup,
    Typed, Viewer, refuse_unknown, whole,
};

/// The game's name.
pub(super) const NAME: &str = "pairs";

const PAIRS_MIN: u8 = 2;
const PAIRS_MAX: u8 = 32;
const PAIRS_DEFAULT: u8 = 8;

/// What players are told.
pub(super) fn info() -> GameInfo {
    GameInfo {
        name: NAME.into(),
        title: "Pairs".into(),
        description: "All cards lie face down. Turn two up: if they are alike you keep them and \
                      go on, if not they are turned back and the next player goes on. Most pairs \
                      win."
            .into(),
        min_players: 2,
        max_players: 8,
        mode: Mode::Turns,
        tick_hz: None,
        plugin: false,
        version: "1".into(),
        default_players: 2,
        grace_seconds: 120,
    }
}

/// All cards face down.
pub(super) fn start(setup: &Setup) -> Result<Box<dyn Game>, BadOption> {
    refuse_unknown(&setup.options, &["pairs"])?;
    let pairs = whole(&setup.options, "pairs", PAIRS_MIN..=PAIRS_MAX)?.unwrap_or(PAIRS_DEFAULT);
    let mut cards: Vec<u8> = (0..pairs).flat_map(|card| [card, card]).collect();
    Rng::new(setup.seed).shuffle(&mut cards);
    Ok(Box::new(Typed(Pairs::new(cards, setup.players))))
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pairs {
    /// What each place's card shows.
    cards: Vec<u8>,
    owner: Vec<Option<Seat>>,
    /// Places turned up in this turn: two only between a flip's two events.
    up: Vec<u8>,
    players: u8,
    gone: SeatSet,
    /// `None` once it is over.
    turn: Option<Seat>,
    outcome: Option<Outcome>,
}

// An enum, since a struct's fields could come as a JSON array too.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Command {
    Flip(u8),
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Event {
    Flipped { flipped: u8, card: u8 },
    Kept { kept: [u8; 2] },
    Hidden { hidden: [u8; 2] },
}

#[derive(Serialize)]
struct View {
    cards: Vec<Option<u8>>,
    owner: Vec<Option<Seat>>,
    scores: Vec<usize>,
    turn: Option<Seat>,
}

impl Pairs {
    fn new(cards: Vec<u8>, players: u8) -> Self {
        Self {
            owner: vec![None; cards.len()],
            cards,
            up: Vec::with_capacity(2),
            players,
            gone: SeatSet::default(),
            turn: Some(Seat(0)),
            outcome: None,
        }
    }

    fn seats(&self) -> impl Iterator<Item = Seat> {
        (0..self.players).map(Seat)
    }

    fn playing(&self) -> impl Iterator<Item = Seat> {
        self.seats().filter(|seat| !self.gone.contains(*seat))
    }

    fn score(&self, seat: Seat) -> usize {
        self.owner.iter().filter(|owner| **owner == Some(seat)).count() / 2
    }

    /// The card at `place`, where it lies open.
    fn shown(&self, place: u8) -> Option<u8> {
        let card = self.cards.get(usize::from(place)).copied();
        let owned = self.owner.get(usize::from(place)).copied().flatten().is_some();
        card.filter(|_| owned || self.up.contains(&place))
    }

    /// The turn of `seat` is over: its cards are face down again, and the next one begins.
    fn pass(&mut self, seat: Seat) {
        self.up.clear();
        let later = self.playing().find(|next| *next > seat);
        self.turn = later.or_else(|| self.playing().next());
    }

    fn keep(&mut self, seat: Seat, pair: [u8; 2]) {
        self.up.clear();
        for place in pair {
            if let Some(owner) = self.owner.get_mut(usize::from(place)) {
                *owner = Some(seat);
            }
        }
        if self.owner.iter().all(Option::is_some) {
            let most = self.playing().map(|seat| self.score(seat)).max();
            let best = self.playing().filter(|seat| Some(self.score(*seat)) == most).collect();
            self.end(Outcome::completed(best));
        }
    }

    fn end(&mut self, outcome: Outcome) {
        self.turn = None;
        self.outcome = Some(outcome);
    }
}

impl Rules for Pairs {
    type Command = Command;
    type Event = Event;
    type View = View;

    fn decide(&self, seat: Seat, Command::Flip(place): Command) -> Result<Vec<Event>, Refusal> {
        if self.turn != Some(seat) {
            return Err(Refusal::NotYourTurn);
        }
        let Some(card) = self.cards.get(usize::from(place)).copied() else {
            let last = self.cards.len() - 1;
            let detail = format!("there is no card {place}: they are 0 to {last}");
            return Err(Refusal::IllegalMove(detail));
        };
        if self.shown(place).is_some() {
            return Err(Refusal::IllegalMove(format!("card {place} is face up already")));
        }
        let mut events = vec![Event::Flipped { flipped: place, card }];
        if let [first] = self.up[..] {
            let pair = [first, place];
            let alike = self.shown(first) == Some(card);
            events.push(if alike {
                Event::Kept { kept: pair }
            } else {
                Event::Hidden { hidden: pair }
            });
        }
        Ok(events)
    }

    fn apply(&mut self, _seat: Option<Seat>, event: Event) {
        let Some(seat) = self.turn else { return };
        match event {
            Event::Flipped { flipped, .. } => self.up.push(flipped),
            Event::Kept { kept } => self.keep(seat, kept),
            Event::Hidden { .. } => self.pass(seat),
        }
    }

    // Those who look on are told that a seat was left and nothing more, so what else changes must
    // follow from that: an open card is turned back if it was the leaver's turn, and stays if not.
    fn leave(&mut self, seat: Seat, why: Leaving) {
        if self.outcome.is_some() {
            return;
        }
        self.gone = self.gone.with(seat);
        if self.turn == Some(seat) {
            self.pass(seat);
        }
        let playing: Vec<Seat> = self.playing().collect();
        if let [last] = playing[..] {
            self.end(Outcome::left_alone(last, why));
        }
    }

    fn view(&self, _viewer: Viewer) -> View {
        View {
            cards: (0..).take(self.cards.len()).map(|place| self.shown(place)).collect(),
            owner: self.owner.clone(),
            scores: self.seats().map(|seat| self.score(seat)).collect(),
            turn: self.turn,
        }
    }

    fn outcome(&self) -> Option<Outcome> {
        self.outcome.clone()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn flip(game: &mut Pairs, seat: u8, place: u8) -> Value {
        let events = game.decide(Seat(seat), Command::Flip(place)).unwrap();
        let shown = json!(events);
        for event in events {
            game.apply(Some(Seat(seat)), event);
        }
        shown
    }

    fn view(game: &Pairs) -> Value {
        json!(game.view(Viewer::Spectator))
    }

    /// Each twin lies beside the other.
    fn game(pairs: u8, players: u8) -> Pairs {
        Pairs::new((0..pairs).flat_map(|card| [card, card]).collect(), players)
    }

    #[test]
    fn who_finds_a_pair_goes_on_and_who_does_not_is_followed_by_the_next() {
        let mut game = game(3, 2);
        assert_eq!(flip(&mut game, 0, 1), json!([{"flipped": 1, "card": 0}]));
        assert_eq!(view(&game)["cards"], json!([null, 0, null, null, null, null]));
        assert_eq!(flip(&mut game, 0, 0), json!([{"flipped": 0, "card": 0}, {"kept": [1, 0]}]));
        flip(&mut game, 0, 2);
        assert_eq!(flip(&mut game, 0, 5), json!([{"flipped": 5, "card": 2}, {"hidden": [2, 5]}]));
        let expected = json!({
            "cards": [0, 0, null, null, null, null],
            "owner": [0, 0, null, null, null, null],
            "scores": [1, 0],
            "turn": 1,
        });
        assert_eq!(view(&game), expected);
    }

    #[test]
    fn moves_that_break_the_rules_are_refused() {
        let mut game = game(2, 2);
        flip(&mut game, 0, 0);
        let refusal = |seat, place| game.decide(Seat(seat), Command::Flip(place)).err().unwrap();
        assert_eq!(refusal(1, 1), Refusal::NotYourTurn);
        assert!(matches!(refusal(0, 0), Refusal::IllegalMove(_)));
        assert!(matches!(refusal(0, 4), Refusal::IllegalMove(_)));
    }

    #[test]
    fn most_pairs_win() {
        let mut game = game(2, 2);
        for place in 0..4 {
            assert_eq!(game.outcome(), None);
            flip(&mut game, 0, place);
        }
        assert_eq!(game.outcome(), Some(Outcome::completed(vec![Seat(0)])));
        assert_eq!(view(&game)["turn"], json!(null));
    }

    #[test]
    fn as_many_pairs_are_a_draw() {
        let mut game = game(2, 2);
        for (seat, place) in [(0, 0), (0, 1), (0, 2)] {
            flip(&mut game, seat, place);
        }
        // There is no other way to lose the turn with one pair left.
        game.pass(Seat(0));
        flip(&mut game, 1, 2);
        flip(&mut game, 1, 3);
        let draw = Outcome { winners: Vec::new(), draw: true, reason: "completed".into() };
        assert_eq!(game.outcome(), Some(draw));
    }

    #[test]
    fn a_card_that_the_leaver_turned_up_is_turned_back() {
        let mut game = game(3, 3);
        flip(&mut game, 0, 0);
        flip(&mut game, 0, 2);
        flip(&mut game, 1, 4);
        game.leave(Seat(1), Leaving::Resigned);
        assert_eq!(view(&game)["cards"], json!(vec![Value::Null; 6]));
        assert_eq!(view(&game)["turn"], 2);
        // Nor is it the first of the next one's pair.
        assert_eq!(flip(&mut game, 2, 5).as_array().unwrap().len(), 1);
        assert_eq!(game.outcome(), None);
    }

    #[test]
    fn a_card_that_another_turned_up_stays() {
        let mut game = game(3, 3);
        flip(&mut game, 0, 0);
        game.leave(Seat(1), Leaving::Timeout);
        assert_eq!(view(&game)["cards"][0], 0);
        assert_eq!(view(&game)["turn"], 0);
        assert_eq!(flip(&mut game, 0, 2)[1], json!({"hidden": [0, 2]}));
        assert_eq!(view(&game)["turn"], 2, "who left is passed over");
    }

    #[test]
    fn the_last_one_wins_whatever_the_score() {
        let mut game = game(3, 3);
        flip(&mut game, 0, 0);
        flip(&mut game, 0, 1);
        game.leave(Seat(0), Leaving::Resigned);
        game.leave(Seat(2), Leaving::Timeout);
        let outcome = Outcome { winners: vec![Seat(1)], draw: false, reason: "timeout".into() };
        assert_eq!(game.outcome(), Some(outcome.clone()));
        game.leave(Seat(1), Leaving::Resigned);
        assert_eq!(game.outcome(), Some(outcome), "an end is for good");
    }

    #[test]
    fn who_left_wins_nothing() {
        let mut game = game(3, 3);
        for place in 0..4 {
            flip(&mut game, 0, place);
        }
        game.leave(Seat(0), Leaving::Resigned);
        flip(&mut game, 1, 4);
        flip(&mut game, 1, 5);
        assert_eq!(game.outcome(), Some(Outcome::completed(vec![Seat(1)])));
        assert_eq!(view(&game)["scores"], json!([2, 1, 0]));
    }

    #[test]
    fn cards_are_dealt_from_the_seed() {
        let deal = |seed| {
            let setup = Setup { players: 2, seed, options: serde_json::Map::new() };
            let mut game = start(&setup).unwrap();
            let mut seen = Vec::new();
            for place in 0..16_u8 {
                let seat = Seat(place / 2 % 2);
                let command = format!(r#"{{"flip":{place}}}"#);
                let command = serde_json::value::RawValue::from_string(command).unwrap();
                let Ok(events) = game.decide(seat, &command) else { break };
                for event in events {
                    seen.push(event.get().to_owned());
                    game.apply(Some(seat), &event);
                }
            }
            seen
        };
        assert_eq!(deal(1), deal(1));
        assert_ne!(deal(1), deal(2));
    }
}
