// The page of one match: follows it live, takes moves and chat, and plays it back once it is over.

import { BOARDS } from "./boards.js";
import { Chat } from "./chat.js";
import { MatchSocket } from "./client.js";
import { h, openDialog, reconcile, say } from "./dom.js";
import { CROWN, facePicture } from "./faces.js";
import { plain } from "./plain.js";
import { Playback } from "./playback.js";

/// Events that were missed are shown one by one, so many milliseconds apart …
const MISSED_MS = 400;
/// … unless there are more than this.
const MISSED_MAX = 8;
const MOVES_SHOWN_MAX = 200;
/// What an event has made of a game that this page does not know is asked for so many milliseconds
/// later: others may follow.
const REFRESH_MS = 150;
/// Pieces of paper that fly when you win.
const CONFETTI = 30;
/// How far they fly.
const CONFETTI_REM = 28;
const WITHOUT_WINNER = {
  abandoned: "The match was given up.",
  failed: "The game has failed: nobody wins.",
};
const LOST = "Connection lost – it comes back by itself …";

export class MatchPage {
  element;

  #app;
  #socket;
  #id = null;
  #rules = null;
  #board = null;
  #seat = null;
  #phase = "open";
  #players = new Map();
  #connected = new Map();
  #outcome = null;
  #ratings = [];
  #state = null;
  /// The last event that is on the screen; those after it wait in the queue.
  #seq = 0;
  #queue = [];
  #queueTimer = 0;
  /// Runs from an event that this page can't apply until the welcome that tells what came of it.
  #refreshTimer = 0;
  #welcome = null;
  /// Events up to here were there before we came, and are not shown one by one.
  #historyEnd = null;
  #lost = false;
  #busy = null;
  #moves = [];
  #playback = new Playback(() => this.#draw());
  #chat;
  #parts = {};

  /// Opens the match at a socket's path.
  constructor(app, path) {
    this.#app = app;
    const userName = (user) => [...this.#players.values()].find((one) => one.user === user);
    const send = (text) => this.#socket.chat(text);
    this.#chat = new Chat(app.session, send, (user) => userName(user)?.display_name);
    this.element = this.#lay();
    this.#socket = new MatchSocket(app.session, path, {
      after: path.includes("/play/") ? null : 0,
    });
    const on = (type, take) => this.#socket.addEventListener(type, ({ detail }) => take(detail));
    on("link", (link) => {
      this.#drawLink();
      if (link === "refused" && !this.#welcome) app.fail(this.#socket.problem);
    });
    on("welcome", (message) => this.#welcomed(message));
    on("event", (message) => this.#enqueue(message));
    on("view", (message) => this.#show(message));
    on("ended", ({ seq, outcome, ratings }) => {
      this.#ratings = ratings ?? [];
      this.#enqueue({ seq, seat: null, event: { ended: outcome } });
      this.#draw();
    });
    on("presence", ({ seat, connected }) => (this.#connected.set(seat, connected), this.#draw()));
    on("chat", (line) => this.#chat.heard(line));
    on("error", ({ problem }) => app.toast(problem.detail || problem.title));
    this.#drawLink();
  }

  close() {
    clearTimeout(this.#queueTimer);
    clearTimeout(this.#refreshTimer);
    this.#playback.close();
    this.#board?.close?.();
    this.#socket.close();
  }

  // What the server says.

  #welcomed(message) {
    const first = this.#welcome === null;
    this.#welcome = message;
    this.#seat = message.seat;
    for (const player of message.players) {
      this.#players.set(player.seat, { ...this.#players.get(player.seat), ...player });
      this.#connected.set(player.seat, player.connected);
    }
    if (first) this.#begin(message);
    if (!message.resumed) {
      clearTimeout(this.#queueTimer);
      [this.#queue, this.#queueTimer] = [[], 0];
      this.#seq = message.seq;
      this.#state = this.#rules?.start(message.view) ?? {};
    }
    if (this.#seq === message.seq) this.#adopt();
    clearTimeout(this.#refreshTimer);
    this.#refreshTimer = 0;
    if (this.#outcome && this.#rules?.see) this.#loadPlayback();
    this.#draw();
    if (first || message.state === "open") this.#invite();
  }

  #begin({ match, game, mode, view, seq }) {
    this.#id = match;
    this.#historyEnd = seq;
    this.#rules = BOARDS[game] ?? (mode === "relay" ? null : plain);
    history.replaceState(null, "", `#/m/${match}`);
    say(this.#parts.title, this.#app.title(game));
    this.#parts.game = game;
    if (!this.#rules) {
      this.#parts.stage.replaceChildren(this.#app.noBoard());
      return;
    }
    this.#state = this.#rules.start(view);
    this.#board = this.#rules.mount(this.#state, (command) => this.#act(command));
    this.#parts.stage.replaceChildren(this.#board.element);
    this.#parts.told.open = this.#rules === plain;
  }

  /// The view is the server's word on the state after the welcome's last event.
  #adopt() {
    const { view, tick } = this.#welcome;
    this.#state = this.#rules?.see?.(view, tick) ?? { ...this.#state, ...view, tick };
    this.#phase = this.#welcome.state;
    const there = new Set(this.#welcome.players.map(({ seat }) => seat));
    for (const seat of this.#players.keys()) if (!there.has(seat)) this.#players.delete(seat);
  }

  /// A step of a game that the clock moves.
  #show({ view, tick }) {
    const before = this.#state;
    this.#state = this.#rules?.see?.(view, tick) ?? { ...view, tick };
    const told = this.#rules?.tellChange?.(before, this.#state, this.#name) ?? [];
    told.forEach((text, place) => this.#remember(`${tick}.${place}`, text));
    // All but the board changes seldom.
    if (told.length) return this.#draw();
    if (this.#rules?.see) this.#drawStatus();
    this.#drawBoard();
  }

  #enqueue(item) {
    this.#queue.push(item);
    if (!this.#queueTimer) this.#flow();
  }

  #flow() {
    while (this.#queue.length) {
      const wait = this.#pause(this.#queue[0]);
      if (wait) {
        this.#queueTimer = setTimeout(() => {
          this.#queueTimer = 0;
          this.#take(this.#queue.shift());
          this.#flow();
        }, wait);
        break;
      }
      this.#take(this.#queue.shift());
    }
    this.#draw();
  }

  #pause({ seq, event }) {
    if (seq <= this.#historyEnd || this.#queue.length > MISSED_MAX) return 0;
    const missed = seq <= this.#welcome.seq && !event.inputs ? MISSED_MS : 0;
    return Math.max(missed, this.#rules?.pause(event) ?? 0);
  }

  /// Shows all that waits: the player has seen enough.
  #hurry() {
    clearTimeout(this.#queueTimer);
    this.#queueTimer = 0;
    for (const item of this.#queue.splice(0)) this.#take(item);
  }

  #take({ seq, seat, event }) {
    if (event.ended && this.#outcome) return;
    this.#seq = seq;
    if (event.joined) this.#players.set(event.joined.seat, event.joined);
    this.#note(seq, seat, event);
    if (event.left) this.#hasLeft(event.left);
    if (event.started) this.#phase = "running";
    if (this.#rules) this.#state = this.#rules.apply(this.#state, seat, event);
    if (seq === this.#welcome.seq) this.#adopt();
    // Views come by themselves where the clock moves the game, but for that of the end.
    const isShown = this.#welcome.mode === "ticks" && !event.ended;
    const unseen = this.#rules?.see && seq > this.#welcome.seq && !isShown;
    if (unseen) this.#refreshSoon();
    if (event.ended) {
      this.#outcome = event.ended;
      this.#phase = "ended";
      const live = seq > this.#historyEnd;
      this.#parts.status.classList.toggle("cheers", live && this.#hasWon());
      if (this.#rules && !unseen) this.#loadPlayback();
    }
  }

  #refreshSoon() {
    this.#refreshTimer ||= setTimeout(() => this.#socket.refresh(), REFRESH_MS);
  }

  #hasLeft({ seat, reason }) {
    if (this.#phase === "open") this.#players.delete(seat);
    else this.#players.set(seat, { ...this.#players.get(seat), left: reason });
  }

  // Words.

  #name = (seat) => {
    const player = this.#players.get(seat);
    if (!player) return `Player ${seat + 1}`;
    return player.user === this.#app.session.user?.id ? "You" : player.display_name;
  };

  #tell(event, seat) {
    if (event.joined) return `${this.#name(event.joined.seat)} sat down.`;
    if (event.started) return "The match began.";
    if (event.ended) return this.#result(event.ended);
    if (event.left) {
      const how = { resigned: "resigned", timeout: "did not come back in time" };
      return `${this.#name(event.left.seat)} ${how[event.left.reason] ?? "left"}.`;
    }
    return this.#rules?.tell(event, this.#name(seat)) ?? "";
  }

  #result({ winners, draw, reason }) {
    if (draw) return "It is a draw.";
    if (!winners.length)
      return WITHOUT_WINNER[reason] ?? "The match is over.";
    if (winners.includes(this.#seat)) return winners.length > 1 ? "You share the win!" : "You won!";
    const names = winners.map(this.#name).join(" and ");
    return `${names} won.`;
  }

  #note(seq, seat, event) {
    const text = this.#tell(event, seat);
    if (text) this.#remember(String(seq), text);
  }

  #remember(id, text) {
    this.#moves.push({ id, text });
    if (this.#moves.length > MOVES_SHOWN_MAX) this.#moves.shift();
  }

  /// Why it ended as it did.
  #reason({ reason, winners }) {
    const why = { resigned: "By resignation.", timeout: "The other did not come back." };
    if (reason === "completed") return this.#rules?.sum(this.#state, winners) ?? "";
    return why[reason] ?? (WITHOUT_WINNER[reason] ? "" : `By ${reason}.`);
  }

  #hasWon() {
    return Boolean(this.#outcome?.winners.includes(this.#seat)) && !this.#outcome.draw;
  }

  /// Whose turn it is, and what happened last.
  #status() {
    const turn = this.#state?.turn ?? null;
    if (this.#phase === "ended") {
      const outcome = this.#outcome;
      return outcome ? [this.#result(outcome), this.#reason(outcome)] : ["", ""];
    }
    const last = this.#moves.at(-1)?.text ?? "";
    if (this.#phase === "open") {
      if (this.#seat === null) return ["There is a free seat.", ""];
      const free = (this.#rules?.seats(this.#state) ?? 0) - this.#players.size;
      const whom = free > 1 ? `${free} more players` : "another player";
      return [`Waiting for ${whom} …`, "The match begins by itself."];
    }
    if (this.#rules?.headline)
      return this.#rules.headline(this.#state, this.#seat, this.#name, last);
    if (this.#looking()) return [this.#rules.tell(this.#queue[0].event), last];
    if (turn === null) return ["", last];
    const role = this.#rules.role(turn);
    if (this.#busy && this.#lost) return ["Your move waits for the connection.", last];
    if (turn === this.#seat) return [`Your turn${role ? ` – you are ${role}` : ""}`, last];
    return [`${this.#name(turn)}’s turn`, last];
  }

  /// Whether something is left to be seen for a moment before it changes.
  #looking() {
    return Boolean(this.#queueTimer && this.#rules?.pause(this.#queue[0].event));
  }

  #isMyTurn() {
    const mine = this.#seat !== null && this.#state?.turn === this.#seat;
    return mine && this.#phase === "running" && !this.#looking();
  }

  // What the player does.

  async #act(command) {
    if (this.#seat === null || this.#phase !== "running") return;
    // Whose turn it is, the server says.
    if (this.#rules.see) return this.#socket.command(command);
    if (this.#rules.headline) {
      // Now or never: a turn that comes late is worse than none. One that was too late is refused.
      if (this.#socket.link === "open") this.#socket.command(command).catch(() => {});
      return;
    }
    this.#hurry();
    this.#draw();
    if (this.#busy || this.#state.turn !== this.#seat) return;
    if (!this.#rules.allows(this.#state, command)) return;
    this.#busy = command;
    this.#draw();
    await this.#socket.command(command).catch(this.#app.report);
    this.#busy = null;
    this.#draw();
  }

  async #join() {
    await this.#app.session.request("POST", `/v1/matches/${this.#id}/players`, {});
    this.#socket.reconnect();
  }

  #leave() {
    const running = this.#phase === "running";
    const title = running ? "Resign this match?" : "Leave this match?";
    const sure = this.#app.button(running ? "Resign" : "Leave", "danger", async () => {
      dialog.close();
      await this.#app.session.request("DELETE", `/v1/matches/${this.#id}/players/me`);
      if (!running) this.#app.go("#/");
    });
    const stay = this.#app.button("Stay", "", () => dialog.close());
    const text = running ? "The others play on or win." : "Your seat becomes free.";
    const dialog = openDialog(title, h("p", text), h("div.row", sure, stay));
  }

  async #invite() {
    const match = await this.#app.session
      .request("GET", `/v1/matches/${this.#id}`)
      .catch(() => null);
    if (!match) return;
    const seat = match.join_code ? `code=${encodeURIComponent(match.join_code)}` : "join";
    this.#parts.link.value = `${location.origin}/#/m/${this.#id}?${seat}`;
    this.#parts.isPrivate.hidden = match.visibility !== "private";
    this.#draw();
  }

  async #copy() {
    const { link } = this.#parts;
    link.select();
    try {
      await navigator.clipboard.writeText(link.value);
      this.#app.toast("The link is copied: send it to a friend.");
    } catch {
      this.#app.toast("The link is marked: copy it from here.");
    }
  }

  async #loadPlayback() {
    const start = this.#rules.start(this.#welcome.view);
    const tell = (event, seat) => this.#tell(event, seat);
    const { apply, replay, stepMs } = this.#rules;
    const steps = replay && ((log) => replay(this.#welcome.view, log, this.#name, tell));
    const how = { start, apply, tell, steps, stepMs };
    await this.#playback.load(this.#app.session, this.#id, how).catch(this.#app.report);
  }

  // The screen.

  #lay() {
    const { button } = this.#app;
    const parts = this.#parts;
    parts.title = h("h1", "…");
    parts.watching = h("span.badge", { hidden: true }, "Watching");
    parts.isPrivate = h("span.badge", { hidden: true }, "Private");
    parts.turn = h("strong");
    parts.last = h("span");
    const live = { role: "status", "aria-live": "polite" };
    const hidden = { "aria-hidden": "true" };
    const confetti = Array.from({ length: CONFETTI }, (_, place) => {
      const piece = h("i.confetti", hidden);
      piece.style.setProperty("--x", `${(place / CONFETTI - 0.5) * CONFETTI_REM}rem`);
      piece.style.setProperty("--y", `${Math.random() * CONFETTI_REM}rem`);
      return piece;
    });
    parts.crown = h("span.crown", { ...hidden, hidden: true }, facePicture(CROWN));
    parts.status = h(
      "p.status",
      { ...live, "data-testid": "status" },
      parts.crown,
      parts.turn,
      parts.last,
      ...confetti,
    );
    parts.linkText = h("span");
    parts.retry = button("Try now", "small", () => this.#socket.reconnect());
    parts.banner = h(
      "p.banner",
      { ...live, hidden: true, "data-testid": "connection" },
      parts.linkText,
      parts.retry,
    );
    parts.stage = h("div.stage", h("p.quiet", "Setting the table …"));
    parts.players = h("ol.players", { "aria-label": "Players" });
    parts.moves = h("ol.moves");
    parts.told = h("details", h("summary", "What happened"), parts.moves);
    parts.actions = h("div.row");
    return h(
      "div.match",
      h(
        "div.table",
        h("div.head", parts.title, parts.isPrivate, parts.watching),
        parts.banner,
        parts.status,
        this.#layInvitation(),
        parts.stage,
        parts.actions,
      ),
      this.#playback.element,
      h(
        "aside",
        h("section", h("h2", "Players"), parts.players),
        this.#chat.element,
        parts.told,
      ),
    );
  }

  #layInvitation() {
    this.#parts.link = h("input", {
      readonly: true,
      "aria-label": "Invitation link",
      "data-testid": "invite-link",
    });
    const copy = this.#app.button("Copy link", "", () => this.#copy());
    const row = h("div.row", this.#parts.link, copy);
    const text = h("b", "Invite a friend with this link");
    return (this.#parts.invitation = h("div.panel.invitation", { hidden: true }, text, row));
  }

  #draw() {
    // While the past comes in there is nothing to look at yet.
    if (!this.#welcome || this.#seq < this.#historyEnd) return;
    this.#drawBoard();
    this.#drawStatus();
    const myTurn = this.#isMyTurn();
    this.#parts.status.classList.toggle("mine", myTurn);
    this.#parts.status.classList.toggle("over", this.#phase === "ended");
    this.#parts.status.classList.toggle("won", this.#hasWon());
    this.#parts.crown.hidden = !this.#hasWon();
    document.title = `${myTurn ? "● Your turn – " : ""}${this.#parts.title.textContent}`;
    this.#parts.watching.hidden = this.#seat !== null || this.#phase === "open";
    this.#parts.invitation.hidden = this.#phase !== "open" || !this.#parts.link.value;
    reconcile(this.#parts.players, this.#playerItems(), (item) => this.#playerLine(item));
    reconcile(this.#parts.moves, [...this.#moves].reverse(), ({ text }) => h("li", text));
    this.#drawActions();
    this.#drawLink();
  }

  #drawStatus() {
    const [turn, last] = this.#status();
    say(this.#parts.turn, turn);
    say(this.#parts.last, last);
  }

  #drawBoard() {
    if (!this.#board) return;
    const state = this.#playback.state ?? this.#state;
    const running = this.#phase === "running";
    const rides = running && this.#seat !== null && this.#rules.headline;
    const canAct = rides ? this.#rules.allows(state, this.#seat) : this.#isMyTurn() && !this.#busy;
    this.#parts.stage.classList.toggle("idle", this.#phase === "open");
    this.#parts.stage.classList.toggle("live", running);
    const { seat, busy } = { seat: this.#seat, busy: this.#busy };
    this.#board.draw(state, { names: this.#name, seat, canAct, busy });
  }

  #playerItems() {
    const state = this.#playback.state ?? this.#state;
    const seats = [...this.#players.keys()].sort((a, b) => a - b);
    return seats.map((seat) => ({
      id: String(seat),
      seat,
      name: this.#players.get(seat).display_name,
      you: seat === this.#seat,
      left: this.#players.get(seat).left,
      away: !this.#connected.get(seat) && this.#phase !== "ended",
      turn: state?.turn === seat && this.#phase !== "open",
      won: Boolean(this.#outcome?.winners.includes(seat)),
      draw: Boolean(this.#outcome?.draw),
      rating: this.#rating(seat),
      score: this.#phase === "open" ? undefined : state?.scores?.[seat],
      out: this.#phase === "running" && state?.riding?.[seat] === false,
      role: this.#rules?.role(seat),
    }));
  }

  /// What the end has made of a player's rating.
  #rating(seat) {
    const change = this.#ratings.find((one) => one.seat === seat);
    if (!change || this.#phase !== "ended") return undefined;
    const [before, after] = [change.before, change.after].map(Math.round);
    return `${after} (${after < before ? "−" : "+"}${Math.abs(after - before)})`;
  }

  #playerLine({ seat, name, you, left, away, turn, won, draw, rating, score, out, role }) {
    const there = out ? "out" : you ? "you" : "";
    const note = left === "resigned" ? "resigned" : left ? "left" : away ? "away" : there;
    return h(
      "li",
      { class: `player ${turn ? "turn" : ""} ${away || left ? "away" : ""}` },
      h(`i.token.seat-${seat}`, { "aria-hidden": !role }, role ?? [...name][0]),
      h("span.name", name),
      note ? h("span.note", note) : null,
      won ? h("span.note.won", draw ? "draw" : "won") : null,
      rating ? h("span.note", { title: "Rating" }, rating) : null,
      score === undefined
        ? null
        : h("span.score", { "aria-label": `${score} ${this.#rules?.unit}` }, String(score)),
    );
  }

  #drawActions() {
    const { button } = this.#app;
    const seated = this.#seat !== null && !this.#players.get(this.#seat)?.left;
    const wanted = {
      open: seated ? "leave" : "join",
      running: seated ? "resign" : "watch",
      ended: "ended",
    }[this.#phase];
    if (this.#parts.actions.dataset.shown === wanted) return;
    this.#parts.actions.dataset.shown = wanted;
    const back = button("Back to the lobby", "", () => this.#app.go("#/"));
    const buttons = {
      join: [button("Take a seat", "primary", () => this.#join()), back],
      leave: [button("Leave match", "", () => this.#leave()), back],
      resign: [button("Resign", "", () => this.#leave())],
      watch: [back],
      ended: [
        button("Play again", "primary", () => this.#app.go(`#/play/${this.#parts.game}`)),
        back,
      ],
    }[wanted];
    this.#parts.actions.replaceChildren(...buttons);
  }

  #drawLink() {
    const { link, problem } = this.#socket;
    const again = this.#welcome !== null;
    if (link !== "connecting") this.#lost = link === "lost";
    const text = {
      connecting: again && this.#lost ? LOST : "",
      lost: LOST,
      replaced: "This match is open in another window.",
      refused: problem?.message,
    }[link];
    say(this.#parts.linkText, text ?? "");
    this.#parts.banner.hidden = !text;
    this.#parts.retry.hidden = !["lost", "replaced"].includes(link);
    say(this.#parts.retry, link === "replaced" ? "Play here" : "Try now");
    const hints = { open: "Say something", over: "The chat is closed" };
    // Who writes is not to be kept from it by a look at the view.
    if (link === "connecting" && this.#refreshTimer) return;
    this.#chat.allow(link === "open", hints[link] ?? "Not connected");
  }
}
