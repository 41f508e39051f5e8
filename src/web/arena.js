// `arena`: the board of light cycles, and the server's rules once more, so that a finished match can
// be gone through step by step from its log. `src/games/arena.rs` is what counts; a test holds this
// to it.

import { h, set } from "./dom.js";

/// The time of a step, and how many of them are a countdown and the look at a round's end.
const STEP_MS = 50;
const COUNTDOWN = 60;
const PAUSE = 30;
const TURNS_MAX = 3;
/// Steps of a match that are gone through at most: more than an hour.
const STEPS_MAX = 100_000;

const AHEAD = { up: [0, -1], right: [1, 0], down: [0, 1], left: [-1, 0] };
const OPPOSITE = { up: "down", right: "left", down: "up", left: "right" };
const KEYS = {
  ...{ ArrowUp: "up", ArrowRight: "right", ArrowDown: "down", ArrowLeft: "left" },
  ...{ KeyW: "up", KeyD: "right", KeyS: "down", KeyA: "left" },
};
const ARROWS = { up: "↑", left: "←", down: "↓", right: "→" };
/// A finger that moves so far, in pixels, means a turn.
const SWIPE_PX = 22;
const CRASH_MS = 500;
/// The canvas is as fine as this many pixels a cell at most.
const CELL_PX_MAX = 16;

// The rules.

/// A match before its first step. Beside what the view has, a state here has `turns` that wait, who
/// is `gone`, and whether it is `over`.
export function begin({ size, rounds, heads }) {
  const seats = heads.map((_, seat) => seat);
  const state = {
    ...{ size, round: 1, rounds, starts_at: COUNTDOWN, decided_at: null },
    ...{ tick: 0, scores: seats.map(() => 0), gone: [], over: false },
  };
  return { ...state, ...atTheStarts(state, seats.length) };
}

/// One step, in which each of `inputs`, `{seat, input}`, comes to be a turn that waits.
export function step(before, inputs = []) {
  let state = { ...before, turns: before.turns.map((turns) => [...turns]) };
  for (const { seat, input } of inputs) {
    const turns = state.turns[seat];
    if (state.riding[seat] && turns.length < TURNS_MAX) turns.push(input.turn);
  }
  if (state.over) return state;
  state.tick++;
  if (state.decided_at !== null) {
    if (state.tick < state.decided_at + PAUSE) return state;
    state = { ...state, round: state.round + 1, starts_at: state.tick + COUNTDOWN };
    return { ...state, decided_at: null, ...atTheStarts(state, state.heads.length) };
  }
  state.headings = [...state.headings];
  state.walls = { ...state.walls };
  state.riding.forEach((rides, seat) => rides && takeTurn(state, seat));
  return state.tick < state.starts_at ? state : ride(state);
}

/// A player leaves after the step before.
export function leave(state, seat) {
  const rides = state.riding[seat];
  const after = {
    ...state,
    gone: [...state.gone, seat],
    heads: state.heads.with(seat, null),
    riding: state.riding.with(seat, false),
    walls: rides ? { ...state.walls, [seat]: [] } : state.walls,
    turns: state.turns.with(seat, []),
  };
  return playing(after).length === 1 ? { ...after, over: true } : settle(after, 0);
}

const playing = ({ heads, gone }) => [...heads.keys()].filter((seat) => !gone.includes(seat));

function atTheStarts({ size, round, gone }, players) {
  const seats = Array.from({ length: players }, (_, seat) => seat);
  const starts = seats.map((seat) => place(size, (seat + round - 1) % players));
  return {
    heads: starts.map(([head], seat) => (gone.includes(seat) ? null : head)),
    headings: starts.map(([, heading]) => heading),
    riding: seats.map((seat) => !gone.includes(seat)),
    walls: Object.fromEntries(starts.map(([head], seat) => [seat, gone.includes(seat) ? [] : [head]])),
    turns: seats.map(() => []),
  };
}

function place(size, number) {
  const [near, half] = [Math.floor(size / 6), Math.floor(size / 2)];
  const [cell, heading] = [
    [[near, half], "right"],
    [[size - 1 - half, near], "down"],
    [[near, near], "right"],
    [[size - 1 - near, near], "down"],
  ][Math.floor(number / 2)];
  return number % 2
    ? [cell.map((each) => size - 1 - each), OPPOSITE[heading]]
    : [cell, heading];
}

/// The next of the turns that wait, if it is one.
function takeTurn(state, seat) {
  const heading = state.headings[seat];
  const turns = state.turns[seat];
  const found = turns.findIndex((turn) => turn !== heading && turn !== OPPOSITE[heading]);
  if (found >= 0) {
    state.headings[seat] = turns[found];
    const [head, wall] = [state.heads[seat], state.walls[seat]];
    if (String(wall.at(-1)) !== String(head)) state.walls[seat] = [...wall, head];
  }
  turns.splice(0, found < 0 ? turns.length : found + 1);
}

function ride(state) {
  const next = state.heads.map((head, seat) => {
    if (!state.riding[seat]) return null;
    const [dx, dy] = AHEAD[state.headings[seat]];
    return [head[0] + dx, head[1] + dy];
  });
  const isFree = (cell, seat) =>
    cell.every((each) => each >= 0 && each < state.size) &&
    !next.some((other, place) => place !== seat && String(other) === String(cell)) &&
    !state.heads.some((head, owner) => blocks(state.walls[owner], head, cell));
  const riding = next.map((cell, seat) => cell !== null && isFree(cell, seat));
  const crashed = next.flatMap((cell, seat) => (cell && !riding[seat] ? [seat] : []));
  const heads = state.heads.map((head, seat) => (riding[seat] ? next[seat] : head));
  const walls = { ...state.walls };
  const turns = [...state.turns];
  for (const seat of crashed) [walls[seat], turns[seat]] = [[], []];
  return settle({ ...state, heads, riding, walls, turns }, crashed.length);
}

/// Whether a wall that ends at a head, or the head itself, stands in a cell.
function blocks(wall, head, [x, y]) {
  return wall.some(([x0, y0], corner) => {
    const [x1, y1] = wall[corner + 1] ?? head;
    const within = (each, a, b) => Math.min(a, b) <= each && each <= Math.max(a, b);
    return within(x, x0, x1) && within(y, y0, y1);
  });
}

function settle(before, crashes) {
  const scores = before.scores.map((score, seat) => score + (before.riding[seat] ? crashes : 0));
  const state = { ...before, scores };
  if (state.riding.filter(Boolean).length > 1 || state.decided_at !== null) return state;
  const seats = playing(state);
  const sorted = seats.map((seat) => scores[seat]).sort((a, b) => b - a);
  const rest = (state.rounds - state.round) * (seats.length - 1);
  const over = state.round === state.rounds || sorted[0] > (sorted[1] ?? sorted[0]) + rest;
  return { ...state, decided_at: state.tick, over };
}

/// What has happened between two steps that are seen one after the other, in words.
function tellChange(before, now, name) {
  const told = now.round !== before.round ? [`Round ${now.round} of ${now.rounds}.`] : [];
  now.riding.forEach((rides, seat) => {
    if (before.riding[seat] && !rides && now.heads[seat]) told.push(`${name(seat)} crashed.`);
  });
  if (now.decided_at !== null && before.decided_at === null) {
    const last = now.riding.indexOf(true);
    told.push(last < 0 ? "Nobody rides any more." : `${name(last)} won the round.`);
  }
  return told;
}

// The board.

export const arena = {
  role: () => null,
  seats: ({ heads }) => heads.length,
  start: (view) => view,
  // What is seen comes as views; events are for those who play back.
  apply: (state) => state,
  allows: ({ riding }, seat) => Boolean(riding[seat]),
  tell: () => "",
  tellChange,
  sum({ scores }) {
    const best = Math.max(...scores);
    return best === 1 ? "1 point." : `${best} points.`;
  },
  pause: () => 0,
  unit: "points",

  /// What to say of the state while it is played, for the player of a seat or for a watcher.
  headline({ round, rounds, riding, decided_at: decided, scores }, seat, name) {
    const where = `Round ${round} of ${rounds}`;
    const last = riding.indexOf(true);
    if (decided !== null && last < 0) return ["Nobody wins the round.", where];
    if (decided !== null) return [`${name(last)} won the round.`, where];
    if (seat !== null && !riding[seat]) return ["You are out.", where];
    return [where, seat === null ? "" : "Turn with the arrow keys, or a swipe."];
  },

  /// The clock of a playback.
  stepMs: STEP_MS,

  /// Every step of a match's log from `begun`, with what is to be told of it.
  replay(view, events, name) {
    const [inputs, leavers] = [new Map(), new Map()];
    for (const { event } of events) {
      if (event.inputs) inputs.set(event.tick, event.inputs);
      const { seat, tick } = event.left ?? {};
      if (tick !== undefined) leavers.set(tick, [...(leavers.get(tick) ?? []), seat]);
    }
    const { ended } = events.at(-1).event;
    const last = Math.max(0, ...inputs.keys(), ...leavers.keys());
    const end = ended?.reason === "completed" ? STEPS_MAX : last;
    let state = begin(view);
    let text = "The match began.";
    const steps = [{ state, text }];
    for (const gone of leavers.get(0) ?? []) state = leave(state, gone);
    while (!state.over && state.tick < end) {
      const before = state;
      state = step(state, inputs.get(state.tick + 1));
      text = tellChange(before, state, name).at(-1) ?? text;
      for (const gone of leavers.get(state.tick) ?? []) {
        state = leave(state, gone);
        text = `${name(gone)} left.`;
      }
      steps.push({ state, text });
    }
    return steps;
  },

  mount: (state, act) => new Track(state, act),
};

/// The canvas, and what turns a rider: keys, swipes and four buttons.
class Track {
  element;

  #act;
  #canvas = h("canvas", { role: "img", width: 1, height: 1 });
  #pad = Object.entries(ARROWS).map(([to, arrow]) => this.#button(to, arrow));
  #colours = [];
  /// The state that is shown, the one before it, and when it came.
  #now;
  #before;
  #cameAt = performance.now();
  #seat = null;
  #names = (seat) => String(seat);
  #canAct = false;
  /// The turn that was asked for and is not seen yet.
  #wish = null;
  #crashes = [];
  #swipe = null;
  #frame = 0;
  #listening = new AbortController();

  constructor(state, act) {
    this.#act = act;
    this.#now = this.#before = state;
    this.element = h(
      "div.arena",
      { role: "group", "aria-label": "Arena board", "data-testid": "board" },
      this.#canvas,
      h("div.pad", ...this.#pad),
    );
    const { signal } = this.#listening;
    document.addEventListener("keydown", (event) => this.#key(event), { signal });
    this.#canvas.addEventListener("pointerdown", (event) => {
      this.#swipe = [event.clientX, event.clientY];
      this.#canvas.setPointerCapture(event.pointerId);
    });
    this.#canvas.addEventListener("pointermove", (event) => this.#move(event));
    this.#canvas.addEventListener("pointerup", () => (this.#swipe = null));
    this.#canvas.addEventListener("pointercancel", () => (this.#swipe = null));
    const paint = (time) => {
      this.#paint(time);
      this.#frame = requestAnimationFrame(paint);
    };
    this.#frame = requestAnimationFrame(paint);
  }

  /// A button that turns as soon as it is touched; its click is the keyboard's.
  #button(to, arrow) {
    const onpointerdown = (event) => (event.preventDefault(), this.#turn(to));
    const onclick = ({ detail }) => detail || this.#turn(to);
    const properties = { type: "button", "data-to": to, "aria-label": `Turn ${to}` };
    return h(`button.pad-${to}`, { ...properties, onpointerdown, onclick }, arrow);
  }

  close() {
    this.#listening.abort();
    cancelAnimationFrame(this.#frame);
  }

  draw(state, { names, seat, canAct }) {
    [this.#names, this.#seat, this.#canAct] = [names, seat, canAct];
    this.element.classList.toggle("rides", canAct);
    if (state === this.#now) return;
    const follows = state.round === this.#now.round && state.tick >= this.#now.tick;
    this.#before = follows ? this.#now : state;
    this.#now = state;
    this.#cameAt = performance.now();
    state.riding.forEach((rides, rider) => {
      if (this.#before.riding[rider] && !rides && state.heads[rider]) {
        this.#crashes.push({ rider, at: state.heads[rider], since: this.#cameAt });
      }
    });
    const heading = seat === null ? null : state.headings[seat];
    if (heading === this.#wish) this.#wish = null;
    for (const button of this.#pad) set(button, "aria-pressed", button.dataset.to === heading);
    this.#describe();
  }

  /// The picture in words; not where everybody is, which nobody could follow.
  #describe() {
    const { round, rounds, riding, heads } = this.#now;
    const out = [...heads.keys()].filter((seat) => !riding[seat]).map(this.#names);
    const there = out.length ? `${out.join(", ")} out` : "all ride";
    set(this.#canvas, "aria-label", `Arena, round ${round} of ${rounds}: ${there}`);
  }

  #turn(to) {
    if (!this.#canAct) return;
    const heading = this.#wish ?? this.#now.headings[this.#seat];
    if (to === heading || to === OPPOSITE[heading]) return;
    this.#wish = to;
    this.#act({ turn: to });
  }

  #key(event) {
    const to = KEYS[event.code];
    const elsewhere = event.target.closest("input, textarea, dialog, summary");
    if (!to || elsewhere || event.ctrlKey || event.altKey || event.metaKey) return;
    if (!this.#canAct) return;
    event.preventDefault();
    if (!event.repeat) this.#turn(to);
  }

  /// A turn as soon as the finger has moved far enough; it can go on to the next.
  #move({ clientX, clientY }) {
    if (!this.#swipe) return;
    const [dx, dy] = [clientX - this.#swipe[0], clientY - this.#swipe[1]];
    if (Math.max(Math.abs(dx), Math.abs(dy)) < SWIPE_PX) return;
    this.#swipe = [clientX, clientY];
    const across = Math.abs(dx) > Math.abs(dy);
    this.#turn(across ? (dx > 0 ? "right" : "left") : dy > 0 ? "down" : "up");
  }

  #paint(time) {
    const { size } = this.#now;
    const pixels = Math.round(this.#canvas.clientWidth * devicePixelRatio);
    const side = Math.min(pixels, size * CELL_PX_MAX);
    if (!side) return;
    if (this.#canvas.width !== side || !this.#colours.length) {
      this.#canvas.width = this.#canvas.height = side;
      const style = getComputedStyle(this.element);
      this.#colours = this.#now.heads.map((_, seat) => style.getPropertyValue(`--s${seat}`));
      this.#colours.ink = style.color;
    }
    const paper = this.#canvas.getContext("2d");
    paper.setTransform(side / size, 0, 0, side / size, 0, 0);
    paper.clearRect(0, 0, size, size);
    paper.lineJoin = paper.lineCap = "round";
    const passed = Math.max(0, Math.min(1, (time - this.#cameAt) / STEP_MS));
    const heads = this.#now.heads.map((head, seat) => this.#between(head, seat, passed));
    heads.forEach((head, seat) => this.#now.riding[seat] && this.#paintWall(paper, seat, head));
    heads.forEach((head, seat) => this.#now.riding[seat] && this.#paintHead(paper, seat, head));
    this.#crashes = this.#crashes.filter(({ since }) => time - since < CRASH_MS);
    for (const crash of this.#crashes) this.#paintCrash(paper, crash, (time - crash.since) / CRASH_MS);
    this.#paintCountdown(paper, heads, time);
  }

  /// Where a head is seen on its way from the step before to this one.
  #between(head, seat, passed) {
    const from = this.#before.heads[seat];
    if (!head || !from) return head;
    const far = Math.abs(head[0] - from[0]) + Math.abs(head[1] - from[1]) > 2;
    return far ? head : head.map((to, axis) => from[axis] + (to - from[axis]) * passed);
  }

  #paintWall(paper, seat, [x, y]) {
    const path = new Path2D();
    for (const [cornerX, cornerY] of this.#now.walls[seat]) path.lineTo(cornerX + 0.5, cornerY + 0.5);
    path.lineTo(x + 0.5, y + 0.5);
    paper.strokeStyle = this.#colours[seat];
    for (const [width, alpha] of [
      [1.7, 0.22],
      [0.8, 1],
    ]) {
      [paper.lineWidth, paper.globalAlpha] = [width, alpha];
      paper.stroke(path);
    }
  }

  /// An arrow that points where its rider goes, or is about to: a turn is seen before it is made.
  #paintHead(paper, seat, [x, y]) {
    const own = seat === this.#seat;
    const [dx, dy] = AHEAD[(own && this.#wish) || this.#now.headings[seat]];
    const radius = own ? 1.5 : 1.2;
    const [middleX, middleY] = [x + 0.5, y + 0.5];
    paper.globalAlpha = 1;
    paper.fillStyle = this.#colours[seat];
    paper.beginPath();
    paper.moveTo(middleX + dx * radius * 1.3, middleY + dy * radius * 1.3);
    paper.lineTo(middleX - dx * radius * 0.7 + dy * radius, middleY - dy * radius * 0.7 + dx * radius);
    paper.lineTo(middleX - dx * radius * 0.7 - dy * radius, middleY - dy * radius * 0.7 - dx * radius);
    paper.closePath();
    paper.fill();
    if (!own) return;
    [paper.lineWidth, paper.strokeStyle] = [0.35, this.#colours.ink];
    paper.stroke();
  }

  #paintCrash(paper, { rider, at: [x, y] }, passed) {
    paper.globalAlpha = 1 - passed;
    [paper.lineWidth, paper.strokeStyle] = [1.2 * (1 - passed), this.#colours[rider]];
    paper.beginPath();
    paper.arc(x + 0.5, y + 0.5, 1 + 5 * passed, 0, 2 * Math.PI);
    paper.stroke();
  }

  /// How long it is to the start, and whose rider is where.
  #paintCountdown(paper, heads, time) {
    const { size, tick, starts_at: start } = this.#now;
    const left = start - tick - (time - this.#cameAt) / STEP_MS;
    if (left <= 0 || !this.element.closest(".live")) return;
    paper.globalAlpha = 1;
    paper.textAlign = "center";
    paper.fillStyle = this.#colours.ink;
    paper.font = `700 ${size / 5}px sans-serif`;
    paper.fillText(Math.ceil((left * STEP_MS) / 1000), size / 2, size * 0.57);
    paper.font = `600 ${size / 24}px sans-serif`;
    heads.forEach((head, seat) => {
      if (!head) return;
      paper.fillStyle = this.#colours[seat];
      const edge = Math.max(size / 10, Math.min(size * 0.9, head[0]));
      paper.fillText(this.#names(seat), edge, head[1] + (head[1] < size / 2 ? -3 : 3 + size / 24));
    });
  }
}
