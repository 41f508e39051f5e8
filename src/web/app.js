// The pages around a match: welcome, lobby, account; which one is shown follows from the address.
//
//   #/                     the lobby
//   #/play/{game}          quick play
//   #/m/{match}            a match; with ?code={join code} an invitation to a private one

import { BOARDS, PAIRS_MAX, gamePicture } from "./boards.js";
import { Problem, Session } from "./client.js";
import { h, openDialog, reconcile, say, set } from "./dom.js";
import { MatchPage } from "./match.js";

const POLL_MS = 2_000;
const LIST_LIMIT = 20;
const TOAST_MS = 5_000;
const PLAYERS_MAX = 8;
const ROUNDS_MAX = 9;
/// Games' options that are numbers: what they are called, the most, and what they are where a match
/// says nothing.
const PLAYERS = { label: "Players", min: 2, max: PLAYERS_MAX, usual: 2 };
const OPTIONS = {
  pairs: { pairs: { label: "Pairs of cards", min: 2, max: PAIRS_MAX, usual: 8 }, players: PLAYERS },
  arena: { rounds: { label: "Rounds", min: 1, max: ROUNDS_MAX, usual: 3 }, players: PLAYERS },
};

const session = await Session.open();
const page = document.getElementById("page");
const games = new Map();

/// What pages share.
const app = { session, toast, report, fail, button, go, title, noBoard };

function go(address) {
  if (location.hash === address) route();
  else location.hash = address;
}

function title(game) {
  return games.get(game)?.title ?? game;
}

function toast(text) {
  const line = h("p", text);
  document.getElementById("toasts").append(line);
  setTimeout(() => line.remove(), TOAST_MS);
}

function report(problem) {
  toast(sentence(problem.message));
}

/// What the server says is made to be part of a line in a log; here it stands for itself.
function sentence(text) {
  return `${text[0].toUpperCase()}${text.slice(1)}${/[.!?…]$/.test(text) ? "" : "."}`;
}

/// A button that rests while its work is under way, and tells what went wrong.
function button(label, kind, work) {
  const onclick = async () => {
    element.disabled = true;
    await Promise.resolve(work()).catch(report);
    element.disabled = false;
  };
  const element = h("button", { type: "button", class: kind, onclick }, label);
  return element;
}

/// Games of rooms alone have no board here: a game that is not known has a plain one.
function hasBoard(game) {
  return Boolean(BOARDS[game]) || games.get(game)?.mode !== "relay";
}

function noBoard() {
  const [rest, sockets] = ["/openapi.json", "/asyncapi.json"].map((path) =>
    h("a", { href: path, target: "_blank", rel: "noopener" }, path),
  );
  const text = "This page has no board for it. A client of your own speaks ";
  return h("p.quiet", text, rest, " and ", sockets, ".");
}

// Forms.

function field(label, name, properties = {}) {
  const input = h("input", { name, ...properties });
  return h("label", h("span", label), input, h("small.wrong", { "data-for": name, role: "alert" }));
}

const nameField = (label, value = "") =>
  field(label, "display_name", { value, maxlength: 32, autocomplete: "nickname" });

const accountFields = (autocomplete) => [
  field("User name", "username", {
    required: true,
    autocomplete: "username",
    autocapitalize: "none",
  }),
  field(
    autocomplete === "new-password" ? "Password (8 characters or more)" : "Password",
    "password",
    { required: true, type: "password", autocomplete },
  ),
];

function stayField() {
  const box = h("input", { type: "checkbox", name: "stay" });
  return Session.canStay ? h("label.check", box, "Stay signed in on this device") : null;
}

/// A form whose `act` takes the fields' values; what the server says is wrong stands beside them.
function form(fields, label, act, kind = "primary") {
  const wrong = h("p.wrong", { role: "alert" });
  const submit = h("button", { class: kind }, label);
  const onsubmit = async (event) => {
    event.preventDefault();
    const values = Object.fromEntries(new FormData(element));
    const notes = new Map(
      [...element.querySelectorAll("[data-for]")].map((note) => [note.dataset.for, note]),
    );
    for (const note of [wrong, ...notes.values()]) say(note, "");
    for (const name of notes.keys()) element.elements[name].removeAttribute("aria-invalid");
    submit.disabled = true;
    try {
      await act(values);
    } catch (problem) {
      for (const { field: name, detail } of problem.errors) {
        say(notes.get(name) ?? wrong, sentence(detail));
        if (notes.has(name)) set(element.elements[name], "aria-invalid", "true");
      }
      if (!problem.errors.some(({ field: name }) => notes.has(name))) say(wrong, sentence(problem.message));
      element.querySelector("[aria-invalid]")?.focus();
    } finally {
      submit.disabled = false;
    }
  };
  const element = h("form", { onsubmit }, ...fields, wrong, submit);
  return element;
}

// Welcome.

function welcomePage() {
  const invited = location.hash.startsWith("#/m/");
  const choices = {
    "As a guest": () =>
      form(
        [nameField("Your name (or leave it to us)")],
        "Play as a guest",
        ({ display_name: name }) => session.playAsGuest(name.trim()),
      ),
    "Sign in": () =>
      form([...accountFields("current-password"), stayField()], "Sign in", ({ stay, ...user }) =>
        session.signIn(user, Boolean(stay)),
      ),
    "New account": () =>
      form(
        [...accountFields("new-password"), nameField("Shown name (optional)"), stayField()],
        "Create account",
        ({ stay, display_name: displayName, ...user }) =>
          session.signUp({ ...user, displayName: displayName.trim() }, Boolean(stay)),
      ),
  };
  const box = h("div.choice");
  const tabs = Object.entries(choices).map(([label, make], place) => {
    const choose = () => {
      tabs.forEach((other) => other.setAttribute("aria-pressed", other === tab));
      box.replaceChildren(make());
    };
    const pressed = String(place === 0);
    const tab = h("button", { type: "button", "aria-pressed": pressed, onclick: choose }, label);
    return tab;
  });
  box.append(choices["As a guest"]());
  const text = invited
    ? "A friend waits for you. Choose a name and take your seat."
    : "Small games for two and more. No download, no waiting: choose a name and play.";
  return h(
    "div.welcome",
    h("div.hero", gamePicture("tictactoe"), gamePicture("arena"), gamePicture("pairs")),
    h("h1", invited ? "You are invited" : "Play together, right now"),
    h("p.lead", text),
    h("div.panel", h("div.tabs", { role: "group", "aria-label": "How to play" }, ...tabs), box),
  );
}

// The account's corner.

function drawAccount() {
  const { user } = session;
  const initial = h(
    "i.token.seat-0",
    { "aria-hidden": "true" },
    [...(user?.display_name ?? "?")][0],
  );
  const corner = h(
    "button.me",
    {
      type: "button",
      "aria-label": `Account of ${user?.display_name}`,
      onclick: openAccount,
    },
    initial,
    h("span", user?.display_name ?? ""),
    user?.guest ? h("small", "guest") : null,
  );
  document.getElementById("account").replaceChildren(...(user ? [corner] : []));
}

function openAccount() {
  const { user } = session;
  const done = (text) => (dialog.close(), toast(text));
  const rename = form(
    [nameField("Shown name", user.display_name)],
    "Change name",
    async ({ display_name: name }) => {
      await session.updateUser({ display_name: name.trim() });
      done("That is your name from now on.");
    },
    "",
  );
  const keep = form(accountFields("new-password"), "Keep this account", async (values) => {
    await session.updateUser(values);
    done("The account is yours: sign in with it anywhere.");
  });
  const signOut = button("Sign out", "", async () => {
    dialog.close();
    await session.signOut();
  });
  const guest = [
    h("h3", "Keep your matches"),
    h(
      "p.quiet",
      "You are a guest, and forgotten when this window is closed. With a user name and a password you stay.",
    ),
    keep,
  ];
  const name = user.guest ? "You play as a guest" : `Signed in as ${user.username}`;
  const dialog = openDialog(name, rename, ...(user.guest ? guest : []), h("hr"), signOut);
}

// The lobby.

class LobbyPage {
  #timer = 0;
  #closed = false;
  #lists = {};
  #offline = h(
    "p.banner",
    { role: "status", hidden: true, "data-testid": "connection" },
    "The server can’t be reached. Trying again …",
  );
  #onVisible = () => document.hidden || this.#poll();

  constructor() {
    const section = (key, label, empty, render) => {
      const list = h("ul.list", { "aria-label": label });
      const nothing = h("p.nothing", empty);
      this.#lists[key] = { list, nothing, render };
      return h("section", { "data-testid": key }, h("h2", label), nothing, list);
    };
    const [playable, others] = [true, false].map((here) =>
      [...games.values()].filter(({ name }) => hasBoard(name) === here),
    );
    this.element = h(
      "div.lobby",
      this.#offline,
      h("h1", "What do you want to play?"),
      h("div.games", ...playable.map(gameCard)),
      h(
        "div.lists",
        section(
          "open",
          "Waiting for a player",
          "Nobody waits just now. Start a match, and somebody may come.",
          openLine,
        ),
        section("running", "Being played now", "No match is being played in public.", runningLine),
        section(
          "mine",
          "Your matches",
          "Matches that you play stay here, to be played back.",
          mineLine,
        ),
      ),
      h(
        "details",
        { hidden: !others.length },
        h("summary", "Games without a board here"),
        noBoard(),
        h("dl.others", ...others.flatMap(otherGame)),
      ),
    );
    document.addEventListener("visibilitychange", this.#onVisible);
    this.#poll();
  }

  close() {
    this.#closed = true;
    clearTimeout(this.#timer);
    document.removeEventListener("visibilitychange", this.#onVisible);
  }

  async #poll() {
    clearTimeout(this.#timer);
    try {
      const [open, running, mine] = await Promise.all(
        ["state=open", "state=running", "mine=true"].map(listMatches),
      );
      const isMine = (match) => seatOf(match) !== undefined;
      this.#show(
        "open",
        open.filter((match) => hasBoard(match.game) && !isMine(match) && isThere(match)),
      );
      this.#show(
        "running",
        running.filter((match) => hasBoard(match.game) && !isMine(match)),
      );
      this.#show(
        "mine",
        mine.filter((match) => hasBoard(match.game)),
      );
      this.#offline.hidden = true;
    } catch {
      this.#offline.hidden = false;
    }
    if (!this.#closed && !document.hidden) this.#timer = setTimeout(() => this.#poll(), POLL_MS);
  }

  #show(key, matches) {
    const { list, nothing, render } = this.#lists[key];
    nothing.hidden = matches.length > 0;
    reconcile(
      list,
      matches.map((match) => ({ ...match, since: since(match.created_at) })),
      render,
    );
  }
}

async function listMatches(query) {
  return (await session.request("GET", `/v1/matches?${query}&limit=${LIST_LIMIT}`)).items;
}

function seatOf(match) {
  return match.players.find(({ user }) => user === session.user?.id)?.seat;
}

function gameCard({ name, title: label, description }) {
  const buttons = h(
    "div.row",
    button("Quick play", "primary", () => go(`#/play/${name}`)),
    button("New match", "", () => openNewMatch(name)),
  );
  return h(
    "article.panel.game",
    { "data-testid": `game-${name}` },
    gamePicture(name),
    h("div", h("h2", label), h("p", description)),
    buttons,
  );
}

const otherGame = ({ title: label, description }) => [h("dt", label), h("dd", description)];

function line(match, note, label, address, kind = "") {
  const others = match.players.filter(({ user }) => user !== session.user?.id);
  const names = others.map(({ display_name: name }) => name).join(", ") || "Nobody else yet";
  const link = h(
    "a",
    {
      class: `button small ${kind}`,
      href: address,
      "aria-label": `${label}: ${title(match.game)}, ${names}`,
    },
    label,
  );
  return h(
    "li",
    gamePicture(match.game),
    h("div.what", h("b", names), h("small", `${title(match.game)} · ${note}`)),
    link,
  );
}

/// Whether somebody who plays waits there now.
const isThere = (match) => match.players.some(({ connected }) => connected);

const openLine = (match) => line(match, match.since, "Join", `#/m/${match.id}?join`, "primary");
const runningLine = (match) => line(match, match.since, "Watch", `#/m/${match.id}`);

function mineLine(match) {
  const { state, outcome } = match;
  if (state !== "ended") {
    const note = state === "open" ? "waiting for players" : "being played";
    return line(match, note, state === "open" ? "Open" : "Play on", `#/m/${match.id}`, "primary");
  }
  const won = outcome?.winners.includes(seatOf(match));
  const result = outcome?.draw
    ? "a draw"
    : won
      ? "you won"
      : outcome?.winners.length
        ? "you lost"
        : outcome?.reason === "failed"
          ? "the game failed"
          : "given up";
  return line(match, `${result} · ${match.since}`, "Replay", `#/m/${match.id}`);
}

function since(time) {
  const minutes = Math.round((Date.now() - Date.parse(time)) / 60_000);
  const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
  if (minutes < 1) return "just now";
  if (minutes < 60) return relative.format(-minutes, "minute");
  return minutes < 1440
    ? relative.format(-Math.round(minutes / 60), "hour")
    : relative.format(-Math.round(minutes / 1440), "day");
}

function openNewMatch(game) {
  const choice = (value, label, note, checked) =>
    h(
      "label.check",
      h("input", { type: "radio", name: "visibility", value, checked }),
      h("span", h("b", label), ` – ${note}`),
    );
  const known = OPTIONS[game] ?? (BOARDS[game] ? {} : null);
  const options = Object.entries(known ?? {}).map(([name, { label, min, max, usual }]) => {
    const bounds = { type: "number", min, max, value: usual };
    return field(label, name, { ...bounds, required: true, inputmode: "numeric" });
  });
  if (!known) options.push(field("Options, as JSON", "options", { value: "{}" }));
  const create = async ({ visibility, ...values }) => {
    const body = { game, visibility, options: known ? unusual(known, values) : parsed(values.options) };
    const { id } = await session.request("POST", "/v1/matches", body);
    dialog.close();
    go(`#/m/${id}`);
  };
  const fields = [
    h(
      "fieldset",
      h("legend", "Who may come"),
      choice("public", "Anyone", "it stands in the lobby", true),
      choice("private", "Friends", "only with your link", false),
    ),
    h("div.row", ...options),
  ];
  const dialog = openDialog(`New match: ${title(game)}`, form(fields, "Create match", create));
}

/// What is as usual is not said: quick play seats others in matches without options alone.
function unusual(known, values) {
  const chosen = Object.entries(values).map(([name, value]) => [name, Number(value)]);
  return Object.fromEntries(chosen.filter(([name, value]) => value !== known[name].usual));
}

function parsed(options) {
  try {
    return JSON.parse(options);
  } catch ({ message }) {
    throw new Problem(422, { errors: [{ field: "options", detail: message }] });
  }
}

// Which page is shown.

let current = { close() {} };

async function openMatch(id, query) {
  const code = query.get("code");
  if (code !== null || query.has("join")) {
    const seat = session.request(
      "POST",
      `/v1/matches/${id}/players`,
      code ? { join_code: code } : {},
    );
    await seat.catch((problem) => {
      if (problem.status !== 409) throw problem;
      report(problem); // Somebody was quicker: a public match can still be watched.
    });
  }
  return new MatchPage(app, `/v1/matches/${id}/socket`);
}

async function choosePage() {
  document.title = "gameserver";
  if (!session.user) return { element: welcomePage(), close() {} };
  const [, kind, name, query] = location.hash.match(/^#\/(m|play)\/([\w-]+)(?:\?(.*))?$/) ?? [];
  // Plugins come and go: the lobby shows those that are there.
  if (!kind || !games.size) {
    const { items } = await session.request("GET", "/v1/games");
    games.clear();
    for (const game of items) games.set(game.name, game);
  }
  if (kind === "m") return openMatch(name, new URLSearchParams(query));
  return kind === "play" ? new MatchPage(app, `/v1/play/${name}/socket`) : new LobbyPage();
}

function failedPage(problem) {
  const text =
    problem.status === 404
      ? "There is no such match, or it is private."
      : sentence(problem.message);
  const again = button("Try again", "primary", route);
  const lobby = h("a.button", { href: "#/" }, "To the lobby");
  return h(
    "div.panel.failed",
    { role: "alert" },
    h("h1", "That did not work"),
    h("p", text),
    h("div.row", again, lobby),
  );
}

function fail(problem) {
  page.replaceChildren(failedPage(problem));
}

async function route() {
  current.close();
  const mine = (current = { close() {} });
  const shown = await choosePage().catch((problem) => ({
    element: failedPage(problem),
    close() {},
  }));
  if (current !== mine) return shown.close();
  current = shown;
  page.replaceChildren(shown.element);
  page.focus({ preventScroll: true });
  scrollTo(0, 0);
}

let shownUser = session.user?.id;
session.addEventListener("change", () => {
  drawAccount();
  if (session.user?.id === shownUser) return;
  shownUser = session.user?.id;
  if (!session.user) toast("You are signed out.");
  route();
});
addEventListener("hashchange", route);
drawAccount();
route();
