// Noughts and crosses: two seats take cells in turn, and three in a row win.

import { begin, done, isRead, put, putNextString, putNumber, read, take, takeKey, takeNumber } from "./text";

export { alloc } from "./text";

const NOBODY = -1;
/** What is read where a seat should be, and is none. */
const NO_SEAT = -2;
const CELLS = 9;
/** Cells in a row, by threes. */
const LINES: StaticArray<i32> = [
  0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 3, 6, 1, 4, 7, 2, 5, 8, 0, 4, 8, 2, 4, 6,
];

/** Whose each cell is. */
const board: StaticArray<i32> = [-1, -1, -1, -1, -1, -1, -1, -1, -1];
/** The seat that is to move; nobody once it is over. */
let turn = 0;
/** Why it is over; empty while it is played. */
let reason = "";
/** Who won; nobody in a draw. */
let winner = NOBODY;

export function interface_version(): i32 {
  return 1;
}

export function info(): i64 {
  begin();
  put('{"title":"Noughts and crosses","description":"Two players take cells in turn. ');
  put('Three in a row, across, down or diagonally, win.","min_players":2,"max_players":2,');
  put('"mode":"turns","grace_seconds":120}');
  return done();
}

export function start(address: usize, length: i32): i64 {
  read(address, length);
  const isSetup = take("{") && takeKey('"players"') && takeNumber() == 2 && take(",");
  if (!isSetup || !takeKey('"options"') || !take("{")) unreachable();
  if (!take("}")) {
    begin();
    put('{"option":');
    putNextString();
    put(',"detail":"the game has no such option; it takes players"}');
    return done();
  }
  clear();
  return 0;
}

export function decide(seat: i32, address: usize, length: i32): i64 {
  read(address, length);
  const isCommand = take("{") && takeKey('"place"');
  const cell = isCommand ? takeNumber() : -1;
  const isWhole = cell >= 0 && take("}") && isRead();
  begin();
  if (!isWhole) {
    put('{"refused":"bad_command","detail":"it takes {\\"place\\": CELL}, and cells are 0 to 8"}');
  } else if (seat != turn) {
    put('{"refused":"not_your_turn"}');
  } else if (cell >= CELLS) {
    put('{"refused":"illegal_move","detail":"there is no cell ');
    putNumber(cell);
    put(': they are 0 to 8"}');
  } else if (board[cell] != NOBODY) {
    put('{"refused":"illegal_move","detail":"cell ');
    putNumber(cell);
    put(' is taken"}');
  } else {
    put('{"events":[{"placed":');
    putNumber(cell);
    put("}]}");
  }
  return done();
}

export function apply(_seat: i32, address: usize, length: i32): void {
  read(address, length);
  if (!take("{") || !takeKey('"placed"')) unreachable();
  const cell = takeNumber();
  if (turn == NOBODY || cell < 0 || cell >= CELLS) return;
  board[cell] = turn;
  if (hasLine(turn)) {
    end(turn, "completed");
  } else if (isFull()) {
    end(NOBODY, "completed");
  } else {
    turn = 1 - turn;
  }
}

export function leave(seat: i32, why: i32): void {
  if (reason == "") end(1 - seat, why == 1 ? "resigned" : "timeout");
}

export function view(_seat: i32): i64 {
  begin();
  putBoardAndTurn();
  put("}");
  return done();
}

export function outcome(): i64 {
  if (reason == "") return 0;
  begin();
  putOutcome();
  return done();
}

export function snapshot(): i64 {
  begin();
  putBoardAndTurn();
  put(',"outcome":');
  if (reason == "") put("null");
  else putOutcome();
  put("}");
  return done();
}

export function restore(address: usize, length: i32): i32 {
  read(address, length);
  if (takeState()) return 1;
  clear();
  return 0;
}

export function commands(seat: i32): i64 {
  begin();
  put("[");
  let separator = "";
  for (let cell = 0; cell < CELLS && seat == turn; cell++) {
    if (board[cell] != NOBODY) continue;
    put(separator);
    put('{"place":');
    putNumber(cell);
    put("}");
    separator = ",";
  }
  put("]");
  return done();
}

/** An empty board. */
function clear(): void {
  for (let cell = 0; cell < CELLS; cell++) board[cell] = NOBODY;
  turn = 0;
  winner = NOBODY;
  reason = "";
}

function hasLine(seat: i32): bool {
  for (let i = 0; i < LINES.length; i += 3) {
    if (board[LINES[i]] == seat && board[LINES[i + 1]] == seat && board[LINES[i + 2]] == seat) return true;
  }
  return false;
}

function isFull(): bool {
  for (let cell = 0; cell < CELLS; cell++) {
    if (board[cell] == NOBODY) return false;
  }
  return true;
}

function end(best: i32, why: string): void {
  turn = NOBODY;
  winner = best;
  reason = why;
}

function putSeat(seat: i32): void {
  if (seat == NOBODY) put("null");
  else putNumber(seat);
}

/** Takes a seat or `null`. */
function takeSeat(): i32 {
  if (take("null")) return NOBODY;
  if (take("0")) return 0;
  return take("1") ? 1 : NO_SEAT;
}

/** An object, all but its end. */
function putBoardAndTurn(): void {
  put('{"board":[');
  for (let cell = 0; cell < CELLS; cell++) {
    if (cell > 0) put(",");
    putSeat(board[cell]);
  }
  put('],"turn":');
  putSeat(turn);
}

function putOutcome(): void {
  put('{"winners":[');
  if (winner != NOBODY) putNumber(winner);
  put('],"draw":');
  put(winner == NOBODY ? "true" : "false");
  put(',"reason":"');
  put(reason);
  put('"}');
}

/** Takes what `snapshot` put. */
function takeState(): bool {
  if (!take("{") || !takeKey('"board"') || !take("[")) return false;
  for (let cell = 0; cell < CELLS; cell++) {
    if (cell > 0 && !take(",")) return false;
    board[cell] = takeSeat();
    if (board[cell] == NO_SEAT) return false;
  }
  if (!take("]") || !take(",") || !takeKey('"turn"')) return false;
  turn = takeSeat();
  if (turn == NO_SEAT || !take(",") || !takeKey('"outcome"')) return false;
  return takeOutcome() && take("}") && isRead();
}

/** Takes what `putOutcome` put, or `null`. */
function takeOutcome(): bool {
  winner = NOBODY;
  reason = "";
  if (take("null")) return true;
  if (!take("{") || !takeKey('"winners"') || !take("[")) return false;
  if (!take("]")) {
    winner = takeSeat();
    if (winner < 0 || !take("]")) return false;
  }
  if (!take(",") || !takeKey('"draw"')) return false;
  if (!take(winner == NOBODY ? "true" : "false")) return false;
  if (!take(",") || !takeKey('"reason"')) return false;
  if (take('"completed"')) reason = "completed";
  else if (take('"resigned"')) reason = "resigned";
  else if (take('"timeout"')) reason = "timeout";
  return reason != "" && take("}");
}
