//! Concentration: cards lie face down, and whoever turns up two alike keeps them.
//!
//! The cards are dealt by the match's own chance, so this state knows them all; nobody else may. What
//! goes out is made in two places only: a flip's event tells the card that it turns up, and
//! [`Concentration::view`] those that lie open.

use gameserver_game::{
    BadOption, Info, Leaving, Mode, Outcome, Refusal, Rules, Seat, SeatSet, Setup, Viewer, random,
};
use serde::{Deserialize, Serialize};

const PAIRS_MIN: u8 = 2;
const PAIRS_MAX: u8 = 32;
const PAIRS_DEFAULT: u8 = 8;

gameserver_game::export!(Concentration);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Concentration {
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
#[derive(Serialize, Deserialize)]
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

impl Concentration {
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

impl Rules for Concentration {
    type Command = Command;
    type Event = Event;
    type View = View;

    fn info() -> Info {
        Info {
            title: "Concentration",
            description: "All cards lie face down. Turn two up: if they are alike you keep them and \
                          go on, if not they are turned back and the next player goes on. Most \
                          pairs win.",
            min_players: 2,
            max_players: 8,
            default_players: 2,
            mode: Mode::Turns,
            tick_hz: None,
            grace_seconds: 120,
            one_view: false,
        }
    }

    fn start(setup: &Setup) -> Result<Self, BadOption> {
        setup.refuse_unknown(&["pairs"])?;
        let pairs = setup.whole("pairs", PAIRS_MIN..=PAIRS_MAX)?.unwrap_or(PAIRS_DEFAULT);
        let mut cards: Vec<u8> = (0..pairs).flat_map(|card| [card, card]).collect();
        random::shuffle(&mut cards);
        Ok(Self::new(cards, setup.players))
    }

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

    fn commands(&self, seat: Seat) -> Vec<Command> {
        if self.turn != Some(seat) {
            return Vec::new();
        }
        let places = (0..).take(self.cards.len());
        places.filter(|place| self.shown(*place).is_none()).map(Command::Flip).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flip(game: &mut Concentration, seat: u8, place: u8) -> usize {
        let events = game.decide(Seat(seat), Command::Flip(place)).unwrap();
        let count = events.len();
        for event in events {
            game.apply(Some(Seat(seat)), event);
        }
        count
    }

    #[test]
    fn who_finds_a_pair_goes_on_and_who_does_not_is_followed_by_the_next() {
        let mut game = Concentration::new(vec![0, 0, 1, 2, 1, 2], 2);
        assert_eq!([flip(&mut game, 0, 1), flip(&mut game, 0, 0)], [1, 2]);
        assert_eq!((game.turn, game.score(Seat(0))), (Some(Seat(0)), 1));
        flip(&mut game, 0, 2);
        flip(&mut game, 0, 3);
        assert_eq!(game.turn, Some(Seat(1)));
        assert!(matches!(game.decide(Seat(0), Command::Flip(4)), Err(Refusal::NotYourTurn)));
        assert_eq!(game.view(Viewer::Spectator).cards, [Some(0), Some(0), None, None, None, None]);
    }

    #[test]
    fn each_card_is_dealt_twice() {
        let setup = Setup { players: 2, options: [].into() };
        let mut cards = Concentration::start(&setup).ok().unwrap().cards;
        cards.sort_unstable();
        assert_eq!(cards, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7]);
    }
}
