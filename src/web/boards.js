// The boards: for each game what its events do to what is seen, in words and on the screen.
//
// A board's state has the shape of the game's view and is never changed in place, so that a match
// can be followed live and gone through step by step with the same code. The server alone judges
// moves; `apply` only follows what it says.

import { arena } from "./arena.js";
import { h, set, svg } from "./dom.js";
import { FACES_MAX, faceName, facePicture } from "./faces.js";

/// How long two cards that differ stay to be seen, in milliseconds.
const LOOK_MS = 1_100;
/// A card's picture goes once the card has turned, in milliseconds: see `.card` in the style.
const TURN_MS = 400;

const LINES = [
  [0, 1, 2],
  [3, 4, 5],
  [6, 7, 8],
  [0, 3, 6],
  [1, 4, 7],
  [2, 5, 8],
  [0, 4, 8],
  [2, 4, 6],
];
const ROWS = ["top", "middle", "bottom"];
const COLUMNS = ["left", "centre", "right"];
const MARKS = ["X", "O"];

const tictactoe = {
  /// What a seat plays with.
  role: (seat) => MARKS[seat],

  /// How many seats there are.
  seats: () => 2,

  /// The state before the first event of a match with this view.
  start: () => ({ board: Array(9).fill(null), turn: null, last: null }),

  apply(state, seat, event) {
    if (event.placed === undefined) return { ...state, turn: turnAfter(state, event) };
    const board = state.board.with(event.placed, seat);
    const over = winningLine(board) || !board.includes(null);
    return { board, turn: over ? null : 1 - seat, last: event.placed };
  },

  /// Whether a command is worth sending.
  allows: (state, { place }) => state.board[place] === null,

  /// What an event of the game means, in words.
  tell: (event, who) => `${who} took the ${cellName(event.placed)}.`,

  /// How a match that was played to its end was won, or not.
  sum: (state) => (winningLine(state.board) ? "Three in a row." : "Nobody has three in a row."),

  /// How long to wait before an event is shown, in milliseconds.
  pause: () => 0,

  /// A board; `act` takes the command that a click means.
  mount(_state, act) {
    const { element, cells } = grid("Tic-tac-toe", 9, 3, "cell", (place) => act({ place }));
    element.classList.add("tictactoe");
    const draw = (state, { canAct, busy }) => {
      const line = winningLine(state.board);
      cells.forEach((cell, place) => {
        const seat = state.board[place];
        if (cell.dataset.seat !== String(seat)) {
          cell.dataset.seat = seat;
          cell.replaceChildren(...(seat === null ? [] : [markPicture(seat)]));
        }
        set(cell, "aria-label", `${cellName(place)}: ${seat === null ? "empty" : MARKS[seat]}`);
        set(cell, "aria-disabled", !canAct || seat !== null);
        set(cell, "aria-busy", busy?.place === place);
        cell.classList.toggle("last", state.last === place);
        cell.classList.toggle("won", Boolean(line?.includes(place)));
      });
    };
    return { element, draw };
  },
};

const pairs = {
  role: () => null,

  seats: (state) => state.scores.length,

  start({ cards, owner, scores }) {
    return {
      cards: cards.map(() => null),
      owner: owner.map(() => null),
      scores: scores.map(() => 0),
      turn: null,
      gone: [],
    };
  },

  apply(state, seat, event) {
    if (event.flipped !== undefined) {
      return { ...state, cards: state.cards.with(event.flipped, event.card) };
    }
    if (event.kept) {
      const owner = state.owner.map((old, place) => (event.kept.includes(place) ? seat : old));
      return { ...state, owner, scores: state.scores.with(seat, state.scores[seat] + 1) };
    }
    if (event.hidden) {
      const cards = turnedBack(state, event.hidden);
      return { ...state, cards, turn: nextSeat(state, seat) };
    }
    if (event.left && state.turn !== null) {
      const after = { ...state, gone: [...state.gone, event.left.seat] };
      if (state.turn !== event.left.seat) return after;
      return {
        ...after,
        cards: turnedBack(state, state.cards.keys()),
        turn: nextSeat(after, state.turn),
      };
    }
    return { ...state, turn: turnAfter(state, event) };
  },

  allows: (state, { flip }) => state.cards[flip] === null,

  tell(event, who) {
    if (event.kept) return `${who} found a pair.`;
    if (event.hidden) return "The cards differ.";
    return `${who} turned over card ${event.flipped + 1}: ${faceName(event.card)}.`;
  },

  sum({ scores }, winners) {
    const best = Math.max(...scores);
    const all = scores.reduce((sum, score) => sum + score, 0);
    return `${best} of ${all} pairs${winners.length > 1 ? " each" : ""}.`;
  },

  pause: (event) => (event.hidden ? LOOK_MS : 0),

  /// What scores count.
  unit: "pairs",

  mount(state, act) {
    const count = state.cards.length;
    const square = Math.ceil(Math.sqrt(count));
    const columns = [square, square + 1].find((each) => count % each === 0) ?? square;
    const { element, cells } = grid("Pairs", count, columns, "card", (flip) => act({ flip }));
    element.classList.add("pairs");
    for (const cell of cells) cell.append(cardPicture());
    const draw = (now, { names, canAct, busy }) => {
      cells.forEach((cell, place) => drawCard(cell, place, now, names));
      cells.forEach((cell, place) => {
        set(cell, "aria-disabled", !canAct || now.cards[place] !== null);
        set(cell, "aria-busy", busy?.flip === place);
      });
    };
    return { element, draw };
  },
};

/// By the game's name; for other games this page has no board. One with a `headline` is moved by the
/// server's clock: what is seen comes as views.
export const BOARDS = { tictactoe, pairs, arena };

/// A picture for the lobby.
export function gamePicture(game) {
  const art = {
    tictactoe: () => [markPicture(0), markPicture(1), markPicture(1), markPicture(0)],
    pairs: () => [facePicture(0), facePicture(13), facePicture(1), facePicture(0)],
    arena: () => [wallPicture()],
  }[game];
  const tiles = (art?.() ?? []).map((picture) => h("i", picture));
  return h(`span.art.art-${game}`, { "aria-hidden": "true" }, ...tiles);
}

function turnAfter(state, event) {
  if (event.started) return 0;
  return event.ended ? null : state.turn;
}

function cellName(place) {
  const [row, column] = [ROWS[Math.floor(place / 3)], COLUMNS[place % 3]];
  return place === 4 ? "centre" : `${row} ${column}`.replace("middle ", "");
}

function winningLine(board) {
  return LINES.find(
    ([a, b, c]) => board[a] !== null && board[a] === board[b] && board[a] === board[c],
  );
}

/// The cards with those of `places` face down again that nobody owns.
function turnedBack({ cards, owner }, places) {
  const down = new Set(places);
  return cards.map((card, place) => (down.has(place) && owner[place] === null ? null : card));
}

/// Whose turn it is after `seat`'s: who has left is passed over.
function nextSeat({ scores, gone }, seat) {
  const count = scores.length;
  const order = scores.map((_, step) => (seat + 1 + step) % count);
  return order.find((next) => !gone.includes(next)) ?? null;
}

/// Buttons in rows, with one tab stop: arrow keys, Home and End move the focus.
function grid(label, count, columns, kind, choose) {
  const cells = Array.from({ length: count }, (_, place) =>
    h("button", { type: "button", class: kind, tabindex: place ? -1 : 0, "data-place": place }),
  );
  const focus = (place) => {
    cells.forEach((cell, other) => set(cell, "tabindex", other === place ? 0 : -1));
    cells[place].focus();
  };
  const onkeydown = (event) => {
    const place = cells.indexOf(event.target);
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
    const target = { Home: 0, End: count - 1 }[event.key] ?? place + step;
    if (place < 0 || !(target in cells) || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    focus(target);
  };
  const onclick = ({ target }) => {
    const cell = target.closest("button");
    if (!cell) return;
    focus(cells.indexOf(cell));
    choose(cells.indexOf(cell));
  };
  const properties = {
    class: "board",
    role: "group",
    "aria-label": `${label} board`,
    onkeydown,
    onclick,
  };
  const element = h("div", { ...properties, "data-testid": "board" }, ...cells);
  element.style.setProperty("--columns", columns);
  return { element, cells };
}

/// A cross or a ring, drawn as by hand.
export function markPicture(seat) {
  const strokes = [["M22 22L78 78", "M78 22L22 78"], ["M50 18A32 32 0 1 1 49.9 18"]][seat];
  const paths = strokes.map((d) => svg("path", { d, pathLength: 100 }));
  return svg(`svg.mark.seat-${seat}`, { viewBox: "0 0 100 100", "aria-hidden": "true" }, ...paths);
}

/// Two walls around each other.
function wallPicture() {
  const wall = (seat, d) => svg(`path.seat-${seat}`, { d });
  const walls = [wall(0, "M6 70H40V30H74V14"), wall(1, "M94 30H86V86H58V50H60")];
  return svg("svg.walls", { viewBox: "0 0 100 100", "aria-hidden": "true" }, ...walls);
}

function cardPicture() {
  return h("span.turner", h("span.back"), h("span.face"));
}

function drawCard(cell, place, { cards, owner }, names) {
  const [card, seat, face] = [cards[place], owner[place], cell.querySelector(".face")];
  if (card !== null && face.dataset.card !== String(card)) {
    face.dataset.card = card;
    face.replaceChildren(facePicture(card));
  } else if (card === null && face.dataset.card !== undefined) {
    delete face.dataset.card;
    setTimeout(() => face.dataset.card === undefined && face.replaceChildren(), TURN_MS);
  }
  cell.classList.toggle("up", card !== null);
  if (cell.dataset.owner !== String(seat)) cell.dataset.owner = seat;
  const shown = card === null ? "face down" : faceName(card);
  const owned = seat === null ? "" : `, found by ${names(seat)}`;
  set(cell, "aria-label", `Card ${place + 1}: ${shown}${owned}`);
}

/// The largest number of pairs that has a picture for each.
export const PAIRS_MAX = FACES_MAX;
