//! Light cycles: each rider leaves a wall behind and turns to keep clear of all of them; the last one
//! who rides wins the round.
//!
//! Everything is a whole number and nothing is left to chance. The same for all: a start can be turned
//! half round onto the opposite one.

use std::collections::BTreeMap;

use gameserver_game::{
    BadOption, Info, Leaving, Mode, Outcome, Refusal, Rules, Seat, SeatSet, Setup, Viewer,
};
use serde::{Deserialize, Serialize};

const TICK_HZ: u16 = 20;
const SIZE_MIN: u8 = 40;
const SIZE_MAX: u8 = 160;
/// The side of a board for no players, and what each one adds.
const SIZE_BASE: u8 = 68;
const SIZE_PER_PLAYER: u8 = 6;
const ROUNDS_MAX: u8 = 9;
const ROUNDS_DEFAULT: u8 = 3;
/// Steps before riders set off: three seconds.
const COUNTDOWN: u64 = 60;
/// Steps in which the end of a round is looked at.
const PAUSE: u64 = 30;
/// Turns that wait for their steps: one a step.
const TURNS_MAX: usize = 3;

gameserver_game::export!(Cycles, tick);

/// Columns and rows from the top left.
type Cell = [u8; 2];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Heading {
    Up,
    Right,
    Down,
    Left,
}

impl Heading {
    fn is_across(self) -> bool {
        matches!(self, Self::Left | Self::Right)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cycles {
    size: u8,
    rounds: u8,
    /// From 1 on.
    round: u8,
    tick: u64,
    /// The step in which riders set off.
    starts_at: u64,
    /// The step that decided the round.
    decided_at: Option<u64>,
    riders: Vec<Rider>,
    gone: SeatSet,
    outcome: Option<Outcome>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rider {
    head: Cell,
    heading: Heading,
    riding: bool,
    /// Where the wall begins and each of its corners; it ends at the head.
    wall: Vec<Cell>,
    turns: Vec<Heading>,
    score: u16,
}

/// What a player asks for, and what is made of it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Command {
    Turn(Heading),
}

#[derive(Serialize)]
struct View {
    size: u8,
    round: u8,
    rounds: u8,
    starts_at: u64,
    decided_at: Option<u64>,
    heads: Vec<Option<Cell>>,
    headings: Vec<Heading>,
    riding: Vec<bool>,
    scores: Vec<u16>,
    walls: BTreeMap<Seat, Vec<Cell>>,
}

impl Rider {
    fn new((head, heading): (Cell, Heading), riding: bool, score: u16) -> Self {
        let wall = if riding { vec![head] } else { Vec::new() };
        Self { head, heading, riding, wall, turns: Vec::new(), score }
    }

    /// Takes the next of the turns that wait, if it is one.
    fn turn(&mut self) {
        let turn = self.turns.iter().position(|turn| turn.is_across() != self.heading.is_across());
        let Some(place) = turn else { return self.turns.clear() };
        self.heading = self.turns[place];
        self.turns.drain(..=place);
        if self.wall.last() != Some(&self.head) {
            self.wall.push(self.head);
        }
    }

    /// The cell before it; none at the edge of the board.
    fn next(&self, size: u8) -> Option<Cell> {
        let [x, y] = self.head;
        let next = match self.heading {
            Heading::Up => [x, y.checked_sub(1)?],
            Heading::Right => [x + 1, y],
            Heading::Down => [x, y + 1],
            Heading::Left => [x.checked_sub(1)?, y],
        };
        next.iter().all(|place| *place < size).then_some(next)
    }

    /// Whether its wall, or itself, stands in a cell.
    fn blocks(&self, [x, y]: Cell) -> bool {
        let ends = self.wall.iter().skip(1).chain([&self.head]);
        self.wall.iter().zip(ends).any(|([x0, y0], [x1, y1])| {
            (*x0.min(x1)..=*x0.max(x1)).contains(&x) && (*y0.min(y1)..=*y0.max(y1)).contains(&y)
        })
    }

    /// Out until the next round, and its wall with it.
    fn crash(&mut self) {
        self.riding = false;
        self.wall.clear();
        self.turns.clear();
    }
}

impl Cycles {
    fn new(size: u8, rounds: u8, players: u8) -> Self {
        let rider = |seat| Rider::new(place(size, seat, players), true, 0);
        Self {
            size,
            rounds,
            round: 1,
            tick: 0,
            starts_at: COUNTDOWN,
            decided_at: None,
            riders: (0..players).map(rider).collect(),
            gone: SeatSet::default(),
            outcome: None,
        }
    }

    fn seats(&self) -> impl Iterator<Item = (Seat, &Rider)> {
        (0..).map(Seat).zip(&self.riders)
    }

    fn playing(&self) -> impl Iterator<Item = (Seat, &Rider)> {
        self.seats().filter(|(seat, _)| !self.gone.contains(*seat))
    }

    /// All ride on by a cell at once.
    fn ride(&mut self) {
        let nexts: Vec<Option<Cell>> = self
            .riders
            .iter()
            .map(|rider| rider.next(self.size).filter(|_| rider.riding))
            .collect();
        let is_free = |place: usize, next: Cell| {
            let met = nexts.iter().enumerate().any(|(other, n)| other != place && *n == Some(next));
            !met && !self.riders.iter().any(|rider| rider.blocks(next))
        };
        let free: Vec<Option<Cell>> = nexts
            .iter()
            .enumerate()
            .map(|(place, next)| next.filter(|next| is_free(place, *next)))
            .collect();
        let mut crashes = 0;
        for (rider, next) in self.riders.iter_mut().zip(free).filter(|(rider, _)| rider.riding) {
            if let Some(next) = next {
                rider.head = next;
            } else {
                rider.crash();
                crashes += 1;
            }
        }
        self.settle(crashes);
    }

    /// Who still rides gets a point for each who crashed just now; the last one decides the round.
    fn settle(&mut self, crashes: u16) {
        for rider in self.riders.iter_mut().filter(|rider| rider.riding) {
            rider.score += crashes;
        }
        let riding = self.riders.iter().filter(|rider| rider.riding).count();
        if riding > 1 || self.decided_at.is_some() {
            return;
        }
        self.decided_at = Some(self.tick);
        let most = self.playing().map(|(_, rider)| rider.score).max().unwrap_or_default();
        let best: Vec<Seat> =
            self.playing().filter(|(_, rider)| rider.score == most).map(|(seat, _)| seat).collect();
        let others = self.playing().filter(|(seat, _)| !best.contains(seat));
        let second = others.map(|(_, rider)| rider.score).max();
        let second = second.filter(|_| best.len() == 1).unwrap_or(most);
        let rest = u16::from(self.rounds - self.round) * u16::from(self.players_left() - 1);
        if self.round == self.rounds || most > second + rest {
            self.outcome = Some(Outcome::completed(best));
        }
    }

    /// One at least: the last one has won.
    fn players_left(&self) -> u8 {
        u8::try_from(self.playing().count()).unwrap_or(u8::MAX).max(1)
    }

    fn next_round(&mut self) {
        self.round += 1;
        self.starts_at = self.tick + COUNTDOWN;
        self.decided_at = None;
        let players = u8::try_from(self.riders.len()).unwrap_or(u8::MAX);
        for (seat, rider) in (0..).zip(&mut self.riders) {
            let spot = place(self.size, (seat + self.round - 1) % players, players);
            *rider = Rider::new(spot, !self.gone.contains(Seat(seat)), rider.score);
        }
    }
}

/// One of the starts of a board, each two of them opposite each other.
fn place(size: u8, number: u8, players: u8) -> (Cell, Heading) {
    let (near, half) = (size / 6, size / 2);
    let (cell, heading) = match number / 2 {
        0 => ([near, half], Heading::Right),
        1 => ([size - 1 - half, near], Heading::Down),
        2 => ([near, near], Heading::Right),
        _ => ([size - 1 - near, near], Heading::Down),
    };
    debug_assert!(number < players);
    if number.is_multiple_of(2) {
        return (cell, heading);
    }
    let heading = if heading == Heading::Right { Heading::Left } else { Heading::Up };
    (cell.map(|place| size - 1 - place), heading)
}

impl Rules for Cycles {
    type Command = Command;
    type Event = Command;
    type View = View;

    fn info() -> Info {
        Info {
            title: "Cycles",
            description: "Everybody rides, and leaves a wall behind. Turn in time: who hits a wall is \
                          out, and the last one who rides wins the round.",
            min_players: 2,
            max_players: 8,
            default_players: 2,
            mode: Mode::Ticks,
            tick_hz: Some(TICK_HZ),
            grace_seconds: 30,
            one_view: true,
        }
    }

    fn start(setup: &Setup) -> Result<Self, BadOption> {
        setup.refuse_unknown(&["rounds", "size"])?;
        let rounds = setup.whole("rounds", 1..=ROUNDS_MAX)?.unwrap_or(ROUNDS_DEFAULT);
        let size = setup.whole("size", SIZE_MIN..=SIZE_MAX)?;
        let size = size.unwrap_or(SIZE_BASE + SIZE_PER_PLAYER * setup.players);
        Ok(Self::new(size, rounds, setup.players))
    }

    fn decide(&self, seat: Seat, command: Command) -> Result<Vec<Command>, Refusal> {
        if self.riders.get(seat.index()).is_some_and(|rider| rider.riding) {
            return Ok(vec![command]);
        }
        Err(Refusal::IllegalMove("you are out until the next round".into()))
    }

    fn apply(&mut self, seat: Option<Seat>, Command::Turn(heading): Command) {
        let rider = seat.and_then(|seat| self.riders.get_mut(seat.index()));
        if let Some(rider) = rider.filter(|rider| rider.riding && rider.turns.len() < TURNS_MAX) {
            rider.turns.push(heading);
        }
    }

    fn tick(&mut self) {
        if self.outcome.is_some() {
            return;
        }
        self.tick += 1;
        match self.decided_at {
            Some(at) if self.tick >= at + PAUSE => self.next_round(),
            Some(_) => {}
            None => {
                self.riders.iter_mut().filter(|rider| rider.riding).for_each(Rider::turn);
                if self.tick >= self.starts_at {
                    self.ride();
                }
            }
        }
    }

    fn leave(&mut self, seat: Seat, why: Leaving) {
        if self.outcome.is_some() {
            return;
        }
        self.gone = self.gone.with(seat);
        let rider = self.riders.get_mut(seat.index()).filter(|rider| rider.riding);
        if let Some(rider) = rider {
            rider.crash();
        }
        let playing: Vec<Seat> = self.playing().map(|(seat, _)| seat).collect();
        match playing[..] {
            [last] => self.outcome = Some(Outcome::left_alone(last, why)),
            _ => self.settle(0),
        }
    }

    fn view(&self, _viewer: Viewer) -> View {
        let riders = || self.riders.iter();
        let head =
            |(seat, rider): (Seat, &Rider)| (!self.gone.contains(seat)).then_some(rider.head);
        View {
            size: self.size,
            round: self.round,
            rounds: self.rounds,
            starts_at: self.starts_at,
            decided_at: self.decided_at,
            heads: self.seats().map(head).collect(),
            headings: riders().map(|rider| rider.heading).collect(),
            riding: riders().map(|rider| rider.riding).collect(),
            scores: riders().map(|rider| rider.score).collect(),
            walls: self.seats().map(|(seat, rider)| (seat, rider.wall.clone())).collect(),
        }
    }

    fn outcome(&self) -> Option<Outcome> {
        self.outcome.clone()
    }

    fn commands(&self, seat: Seat) -> Vec<Command> {
        let rider = self.riders.get(seat.index()).filter(|rider| rider.riding);
        let Some(rider) = rider else { return Vec::new() };
        let ways = [Heading::Up, Heading::Right, Heading::Down, Heading::Left];
        let turns = ways.into_iter().filter(|way| way.is_across() != rider.heading.is_across());
        turns.map(Command::Turn).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_rides_into_a_wall_is_out_and_the_last_one_wins() {
        let mut game = Cycles::new(40, 1, 2);
        let [turn] =
            game.decide(Seat(1), Command::Turn(Heading::Up)).unwrap().try_into().ok().unwrap();
        game.apply(Some(Seat(1)), turn);
        while game.outcome().is_none() {
            game.tick();
        }
        assert_eq!(game.outcome(), Some(Outcome::completed(vec![Seat(0)])));
        assert_eq!((game.riders[0].score, game.riders[1].riding), (1, false));
        assert!(game.commands(Seat(1)).is_empty());
    }
}
