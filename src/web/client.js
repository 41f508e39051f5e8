// How to speak gameserver's protocol from a browser: read this file as the example.
//
// `Session` signs in, keeps the tokens fresh and calls the REST interface. `MatchSocket` is one
// place in one match: it comes back by itself after a lost connection, misses no event, and sends
// a command that was not acknowledged again under the same id, so that it is applied once.
// Nothing here knows the page, and there are no dependencies.

const REQUEST_MS_MAX = 15_000;
/// An access token is renewed when it has less than this left.
const TOKEN_MARGIN_MS = 30_000;
const STORAGE_KEY = "gameserver.session";
/// How long a reloaded page waits for its predecessor to let go of the session.
const CLAIM_MS_MAX = 1_000;

const PROTOCOL = "gameserver.v1.json";
const WELCOME_MS_MAX = 10_000;
/// Silence after which the server is asked whether it is still there, and how long it may take.
const SILENCE_MS_MAX = 15_000;
const PONG_MS_MAX = 4_000;
const BACKOFF_MS_MIN = 250;
const BACKOFF_MS_MAX = 4_000;
/// A connection that held so long counts as a good one: the next wait is short again.
const SETTLED_MS = 5_000;
const BUSY_RETRIES_MAX = 5;
/// Commands that may wait for an answer.
const COMMANDS_MAX = 64;

/// A refusal: the fields of RFC 9457. `status` is 0 where the server could not be reached.
export class Problem extends Error {
  constructor(status, body = {}, retryAfter = 0) {
    super(body.detail || body.title || `The server answered ${status}.`);
    this.status = status;
    this.word = (body.type || "").split("/").pop();
    this.errors = body.errors || [];
    this.retryAfterSeconds = retryAfter;
  }
}

/// One HTTP call; gives the parsed body or throws a `Problem`.
async function call(method, path, body, token) {
  const headers = { accept: "application/json, application/problem+json" };
  if (token) headers.authorization = `Bearer ${token}`;
  if (body !== undefined) headers["content-type"] = "application/json";
  let response;
  let content;
  try {
    const signal = AbortSignal.timeout(REQUEST_MS_MAX);
    response = await fetch(path, { method, headers, signal, body: JSON.stringify(body) });
    content = await response.text();
  } catch {
    throw new Problem(0, { detail: "The server can’t be reached." });
  }
  let parsed = null;
  try {
    parsed = content === "" ? null : JSON.parse(content);
  } catch {
    throw new Problem(response.status, { detail: "The server’s answer makes no sense." });
  }
  if (response.ok) return parsed;
  throw new Problem(response.status, parsed ?? {}, Number(response.headers.get("retry-after")));
}

/// Who plays in this window.
///
/// Each window has a session of its own (`sessionStorage`), so that two windows can be two players.
/// A user who stays signed in shares one among all windows (`localStorage`). A refresh token works
/// once, and its second use ends the session: so windows that share one take turns by a Web Lock,
/// and a duplicated window, which starts with a copy of the other's storage, does not use the copy.
///
/// Fires `change` when the user changes: signed in, signed out, renamed, revoked.
export class Session extends EventTarget {
  #tokens = null;
  #refreshing = null;

  /// Whether a browser can share one session among windows safely; false on plain `http:` beyond
  /// this machine, where there are no Web Locks.
  static canStay = "locks" in navigator;

  static async open() {
    const session = new Session();
    const own = load(sessionStorage);
    const copied = own && Session.canStay && !(await hold(own.slot));
    session.#tokens = (copied ? null : own) ?? (Session.canStay ? load(localStorage) : null);
    if (copied) sessionStorage.removeItem(STORAGE_KEY);
    addEventListener("storage", (event) => {
      const shared = event.storageArea === localStorage && event.key === STORAGE_KEY;
      if (shared && session.#tokens?.stay) session.#set(load(localStorage));
    });
    return session;
  }

  /// `{id, username, display_name, guest, created_at}`, or null: nobody is signed in.
  get user() {
    return this.#tokens?.user ?? null;
  }

  async playAsGuest(displayName) {
    const body = displayName ? { display_name: displayName } : {};
    this.#begin(await call("POST", "/v1/sessions/guest", body), false);
  }

  async signUp({ username, password, displayName }, stay) {
    const body = { username, password, ...(displayName && { display_name: displayName }) };
    await call("POST", "/v1/users", body);
    await this.signIn({ username, password }, stay);
  }

  async signIn({ username, password }, stay) {
    this.#begin(await call("POST", "/v1/sessions", { username, password }), stay);
  }

  /// Changes `display_name`; with `username` and `password` a guest becomes a full user.
  async updateUser(changes) {
    const user = await this.request("PATCH", "/v1/users/me", changes);
    this.#set({ ...this.#tokens, user });
  }

  /// The session ends here whether the server can be told or not.
  async signOut() {
    try {
      await this.request("DELETE", "/v1/sessions/current");
    } finally {
      this.#set(null);
    }
  }

  /// A REST call as this user; an access token that is refused is renewed, and the call made again.
  async request(method, path, body) {
    const token = await this.#freshToken();
    try {
      return await call(method, path, body, token);
    } catch (problem) {
      if (problem.status !== 401 || !this.#tokens) throw problem;
      return call(method, path, body, await this.#refresh(token));
    }
  }

  async #freshToken() {
    if (!this.#tokens) throw new Problem(401, { detail: "Nobody is signed in." });
    const { access_token: token, expires_at: expiresAt } = this.#tokens;
    return Date.now() < expiresAt - TOKEN_MARGIN_MS ? token : this.#refresh(token);
  }

  /// Gives an access token other than `stale`. All who ask meanwhile wait for the same answer.
  #refresh(stale) {
    if (this.#tokens && this.#tokens.access_token !== stale) return this.#tokens.access_token;
    const rotate = () => this.#rotate();
    this.#refreshing ??= (
      this.#tokens?.stay ? navigator.locks.request(`${STORAGE_KEY}.refresh`, rotate) : rotate()
    ).finally(() => (this.#refreshing = null));
    return this.#refreshing;
  }

  async #rotate() {
    const stored = this.#tokens?.stay ? load(localStorage) : this.#tokens;
    if (stored?.refresh_token !== this.#tokens?.refresh_token) {
      this.#set(stored); // Another window was quicker.
    } else if (stored) {
      try {
        const body = { refresh_token: stored.refresh_token };
        this.#begin(await call("POST", "/v1/sessions/refresh", body), stored.stay, stored);
      } catch (problem) {
        if ([400, 401, 422].includes(problem.status)) this.#set(null);
        throw problem;
      }
    }
    if (this.#tokens) return this.#tokens.access_token;
    throw new Problem(401, { detail: "You were signed out in another window." });
  }

  #begin(pair, stay, previous) {
    const { slot, user } = previous ?? { slot: `${STORAGE_KEY}.${Math.random()}` };
    if (!previous && !stay && Session.canStay) hold(slot);
    const { access_token, refresh_token } = pair;
    const expires_at = Date.now() + pair.expires_in * 1000;
    this.#set({ access_token, refresh_token, expires_at, slot, stay, user: pair.user ?? user });
  }

  #set(tokens) {
    const before = JSON.stringify(this.user);
    if (this.#tokens?.stay && !tokens) localStorage.removeItem(STORAGE_KEY);
    sessionStorage.removeItem(STORAGE_KEY);
    this.#tokens = tokens;
    const storage = tokens?.stay ? localStorage : sessionStorage;
    if (tokens) storage.setItem(STORAGE_KEY, JSON.stringify(tokens));
    if (JSON.stringify(this.user) !== before) this.dispatchEvent(new Event("change"));
  }
}

/// What a JSON merge patch (RFC 7386) makes of a value, which stays as it is.
function merged(target, patch) {
  if (patch === null || typeof patch !== "object" || Array.isArray(patch)) return patch;
  const isObject = target !== null && typeof target === "object" && !Array.isArray(target);
  const result = isObject ? { ...target } : {};
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) delete result[name];
    else result[name] = merged(result[name], value);
  }
  return result;
}

function load(storage) {
  return JSON.parse(storage.getItem(STORAGE_KEY));
}

/// Takes a Web Lock for as long as the window lives; false if another window has it.
function hold(name) {
  return new Promise((resolve) => {
    const forever = () => (resolve(true), new Promise(() => {}));
    const signal = AbortSignal.timeout(CLAIM_MS_MAX);
    navigator.locks.request(name, { signal }, forever).catch(() => resolve(false));
  });
}

/// One place in one match, by way of as many connections as it takes.
///
/// Fires what the server says as events of that name, with the message as `detail`: `welcome`,
/// `event` (each once, in order of `seq`), `view` (always the whole, though differences are what
/// comes), `presence`, `chat`, `ended`; `error` where
/// something other than a command was refused; and `link` when `link` below changes.
export class MatchSocket extends EventTarget {
  /// `connecting`, `open`, `lost` (tries again by and by), `over` (the match has ended),
  /// `replaced` (the player came on another socket) or `refused` (see `problem`).
  link = "connecting";
  problem = null;

  #session;
  #path;
  #socket = null;
  /// The last event that was seen: where to go on.
  #seq;
  /// The last view: the next one may be the difference from it.
  #view = null;
  /// The last id given. One counter for all messages makes an `error`'s id tell what it is about.
  #lastId = 0;
  /// Commands without an answer, in order; without an id until they are first sent.
  #commands = [];
  #attempt = 0;
  #openedAt = 0;
  #ended = false;
  #timer = 0;
  #listening = new AbortController();

  /// `path` is `/v1/matches/{id}/socket` or `/v1/play/{game}/socket`. With `after: 0` the whole
  /// log comes first, with no `after` the present view alone.
  constructor(session, path, { after = null } = {}) {
    super();
    this.#session = session;
    this.#path = path;
    this.#seq = after;
    const { signal } = this.#listening;
    for (const sign of ["online", "offline"]) {
      addEventListener(sign, () => this.#wake(), { signal });
    }
    document.addEventListener("visibilitychange", () => document.hidden || this.#wake(), {
      signal,
    });
    this.#connect();
  }

  /// Asks for a move; resolves to its `seq` once it is durable, rejects with a `Problem`. While
  /// the connection is lost it waits.
  command(command) {
    return new Promise((resolve, reject) => {
      const full = this.#commands.length >= COMMANDS_MAX;
      if (full) throw new Problem(0, { detail: "Too many moves wait for the connection." });
      const entry = { id: null, command, resolve, reject, retries: 0 };
      this.#commands.push(entry);
      if (this.link === "open") this.#sendCommand(entry);
    });
  }

  /// False: the connection is lost, and a line is not worth sending later.
  chat(text) {
    if (this.link !== "open") return false;
    this.#send({ type: "chat", id: ++this.#lastId, text });
    return true;
  }

  /// Connects anew at once: to take a seat that was just given, or the match from another socket.
  reconnect() {
    if (this.link !== "over") this.#connect();
  }

  /// The same for a welcome with the present view, which may be of the end.
  refresh() {
    if (this.link === "open" || this.link === "over") this.#connect();
  }

  close() {
    this.#listening.abort();
    this.#stop("over");
  }

  async #connect() {
    this.#detach();
    this.#openedAt = 0;
    this.#become("connecting");
    const listening = new AbortController();
    const { signal } = listening;
    this.#socket = { close: () => listening.abort() };
    try {
      // A browser can't set a header on a WebSocket; a ticket stands for the access token.
      const { ticket } = await this.#session.request("POST", "/v1/socket-tickets");
      if (signal.aborted) return;
      const url = new URL(this.#path, location.href);
      url.protocol = url.protocol.replace("http", "ws");
      url.searchParams.set("ticket", ticket);
      url.searchParams.set("views", "diff");
      if (this.#seq !== null) url.searchParams.set("after", this.#seq);
      const socket = new WebSocket(url, PROTOCOL);
      let refused = true;
      socket.addEventListener("open", () => (refused = false), { signal });
      socket.addEventListener("message", ({ data }) => this.#receive(JSON.parse(data)), { signal });
      socket.addEventListener("close", ({ code }) => this.#lost(code, refused), { signal });
      const close = () => (listening.abort(), socket.close());
      this.#socket = { send: (text) => socket.send(text), close };
      this.#timer = setTimeout(() => this.#lost(1006), WELCOME_MS_MAX);
    } catch (problem) {
      if (signal.aborted) return;
      if (problem.status === 401) this.#stop("refused", problem);
      else this.#later(problem.retryAfterSeconds * 1000);
    }
  }

  #detach() {
    clearTimeout(this.#timer);
    this.#socket?.close();
    this.#socket = null;
  }

  /// What follows from the end of a connection.
  async #lost(code, refused = false) {
    this.#detach();
    if (this.#openedAt && Date.now() - this.#openedAt > SETTLED_MS) this.#attempt = 0;
    if (this.#ended || code === 1000) return this.#stop("over");
    if (code === 4001) return this.#stop("replaced");
    this.#later({ 1012: 1, 1013: BACKOFF_MS_MAX / 3 }[code]);
    // A browser does not tell why an upgrade was refused; whether there is such a match, REST does.
    if (refused) {
      const page = this.#path.replace("/v1/play/", "/v1/games/").replace(/\/socket$/, "");
      const problem = await this.#session.request("GET", page).then(
        () => null,
        (error) => error,
      );
      if (this.link === "lost" && [401, 403, 404].includes(problem?.status)) {
        this.#stop("refused", problem);
      }
    }
  }

  /// Waits and tries again: at least `delay`, or twice as long each time; never all at once.
  #later(delay) {
    const ceiling = Math.min(BACKOFF_MS_MAX, BACKOFF_MS_MIN * 2 ** ++this.#attempt);
    const wait = (delay || BACKOFF_MS_MIN) + Math.random() * ceiling;
    this.#timer = setTimeout(() => this.#connect(), wait);
    this.#become("lost");
  }

  #stop(link, problem = null) {
    this.#detach();
    this.problem = problem;
    const lost =
      problem ?? new Problem(0, { detail: "The connection ended before the move was confirmed." });
    for (const { reject } of this.#commands.splice(0)) reject(lost);
    this.#become(link);
  }

  #become(link) {
    this.link = link;
    this.#fire("link", link);
  }

  /// The network or the window came back: try now, or see whether the connection lives.
  #wake() {
    if (this.link === "lost") this.#connect();
    else if (this.link === "open") this.#probe();
  }

  #probe() {
    clearTimeout(this.#timer);
    this.#send({ type: "ping", id: ++this.#lastId });
    this.#timer = setTimeout(() => this.#lost(1006), PONG_MS_MAX);
  }

  #receive(message) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#probe(), SILENCE_MS_MAX);
    switch (message.type) {
      case "welcome":
        return this.#welcome(message);
      case "event":
        if (message.seq <= this.#seq) return;
        this.#seq = message.seq;
        break;
      case "view":
        this.#view = message.view ?? merged(this.#view, message.patch);
        message = { ...message, view: this.#view };
        break;
      case "ack":
        return this.#answered(message.id)?.resolve(message.seq);
      case "error":
        if (this.#refused(message)) return;
        break;
      case "ended":
        this.#ended = true;
        break;
    }
    this.#fire(message.type, message);
  }

  #welcome(message) {
    this.#openedAt = Date.now();
    this.#path = `/v1/matches/${message.match}/socket`;
    // When resumed, the events after ours follow and lead to `seq`; else we start from `view`.
    if (!message.resumed) this.#seq = message.seq;
    this.#view = message.view;
    this.#lastId = Math.max(this.#lastId, message.last_id ?? 0);
    this.#fire("welcome", message);
    for (const entry of this.#commands) this.#sendCommand(entry);
    this.#become("open");
  }

  #sendCommand(entry) {
    entry.id ??= ++this.#lastId;
    this.#send({ type: "command", id: entry.id, command: entry.command });
  }

  #answered(id) {
    const place = this.#commands.findIndex((entry) => entry.id === id);
    return place < 0 ? null : this.#commands.splice(place, 1)[0];
  }

  /// Whether it was a command that was refused. One that came at a bad moment is sent again: a
  /// refused id is not used up.
  #refused({ id, problem }) {
    const entry = this.#commands.find((each) => each.id === id);
    if (!entry) return false;
    const refusal = new Problem(problem.status, problem);
    const busy = ["overloaded", "rate-limited"].includes(refusal.word);
    if (busy && entry.retries++ < BUSY_RETRIES_MAX) {
      const again = () => this.link === "open" && this.#commands.includes(entry);
      setTimeout(() => again() && this.#sendCommand(entry), BACKOFF_MS_MIN * 2 ** entry.retries);
    } else {
      this.#answered(id).reject(refusal);
    }
    return true;
  }

  #send(message) {
    this.#socket.send(JSON.stringify(message));
  }

  #fire(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
