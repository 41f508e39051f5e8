//! `tictactoe`: two seats take cells in turn, and three in a row win.

use serde::{Deserialize, Serialize};

use super::{
    BadOption, Game, GameInfo, Leaving, Mode, Outcome, Refusal, Rules, Seat, Setup, Typed, Viewer,
    refuse_unknown,
};

/// The game's name.
pub(super) const NAME: &str = "tictactoe";

const CELLS: usize = 9;
const LINES: [[usize; 3]; 8] =
    [[0, 1, 2], [3, 4, 5], [6, 7, 8], [0, 3, 6], [1, 4, 7], [2, 5, 8], [0, 4, 8], [2, 4, 6]];

/// What players are told.
pub(super) fn info() -> GameInfo {
    GameInfo {
        name: NAME.into(),
        title: "Tic-tac-toe".into(),
        description: "Two players take cells in turn. Three in a row, across, down or diagonally, \
                      win."
            .into(),
        min_players: 2,
        max_players: 2,
        mode: Mode::Turns,
        tick_hz: None,
        plugin: false,
        version: "1".into(),
        default_players: 2,
        grace_seconds: 120,
    }
}

/// An empty board.
pub(super) fn start(setup: &Setup) -> Result<Box<dyn Game>, BadOption> {
    refuse_unknown(&setup.options, &[])?;
    let turn = Some(Seat(0));
    Ok(Box::new(Typed(TicTacToe { board: [None; CELLS], turn, outcome: None })))
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TicTacToe {
    board: [Option<Seat>; CELLS],
    /// `None` once it is over.
    turn: Option<Seat>,
    outcome: Option<Outcome>,
}

// An enum, since a struct's fields could come as a JSON array too.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Command {
    Place(u8),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Event {
    Placed(u8),
}

#[derive(Serialize)]
struct View {
    board: [Option<Seat>; CELLS],
    turn: Option<Seat>,
}

impl TicTacToe {
    fn end(&mut self, outcome: Outcome) {
        self.turn = None;
        self.outcome = Some(outcome);
    }
}

impl Rules for TicTacToe {
    type Command = Command;
    type Event = Event;
    type View = View;

    fn decide(&self, seat: Seat, Command::Place(cell): Command) -> Result<Vec<Event>, Refusal> {
        if self.turn != Some(seat) {
            return Err(Refusal::NotYourTurn);
        }
        match self.board.get(usize::from(cell)) {
            None => Err(Refusal::IllegalMove(format!("there is no cell {cell}: they are 0 to 8"))),
            Some(Some(_)) => Err(Refusal::IllegalMove(format!("cell {cell} is taken"))),
            Some(None) => Ok(vec![Event::Placed(cell)]),
        }
    }

    fn apply(&mut self, _seat: Option<Seat>, Event::Placed(cell): Event) {
        let Some((seat, place)) = self.turn.zip(self.board.get_mut(usize::from(cell))) else {
            return;
        };
        *place = Some(seat);
        if LINES.iter().any(|line| line.iter().all(|cell| self.board[*cell] == Some(seat))) {
            self.end(Outcome::completed(vec![seat]));
        } else if self.board.iter().all(Option::is_some) {
            self.end(Outcome::completed(Vec::new()));
        } else {
            self.turn = Some(other(seat));
        }
    }

    fn leave(&mut self, seat: Seat, why: Leaving) {
        if self.outcome.is_none() {
            self.end(Outcome::left_alone(other(seat), why));
        }
    }

    fn view(&self, _viewer: Viewer) -> View {
        View { board: self.board, turn: self.turn }
    }

    fn outcome(&self) -> Option<Outcome> {
        self.outcome.clone()
    }
}

fn other(seat: Seat) -> Seat {
    Seat(1 - seat.0.min(1))
}
