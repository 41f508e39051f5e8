// Real servers and real browser windows for the tests, and what all of them check: no error on the
// console, no breach of the content security policy, no request to another origin.

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, test } from "node:test";

import { chromium } from "playwright-core";

export const PHONE = { width: 360, height: 740 };
export const DESK = { width: 1280, height: 800 };

/// What the browser itself says on the console while there is no server.
export const NO_SERVER = /ERR_CONNECTION|ERR_EMPTY_RESPONSE|ERR_SOCKET|WebSocket connection to/;
/// … and when it is told that there is no such thing.
export const NOT_FOUND = /status of 404|Unexpected response code: 404/;

/// How long anything may take before a test fails: generous, since machines that test are busy.
const DEADLINE_MS = 20_000;
const BINARY =
  process.env.GAMESERVER_BIN ?? new URL("../../target/debug/gameserver", import.meta.url).pathname;
/// The example games: `just example-games` builds them.
export const GAMES = new URL("../../target/games", import.meta.url).pathname;
/// Lines of a server's log that a failed test shows.
const LOG_LINES_MAX = 20;

// One key and one browser for all tests of a file: both take seconds to make.
const signingKey = execFileSync(BINARY, ["keygen"], { env: {}, encoding: "utf8" });
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
});
after(() => browser.close());

/// A test on a server of its own, through TLS if it says so, and with the games of a folder `plugins`.
/// `play` gets a `Scene`.
export function scene(name, play, { tls = false, plugins = null } = {}) {
  test(name, async () => {
    const stage = new Scene(tls, plugins);
    try {
      await stage.server.start();
      await play(stage);
      stage.checkComplaints();
    } catch (error) {
      await stage.explain();
      throw error;
    } finally {
      await stage.close();
    }
  });
}

/// A server with a data directory of its own.
class Server {
  /// Where players connect, once it runs: the same after a restart.
  address = "127.0.0.1:0";
  log = [];
  #data = mkdtempSync(join(tmpdir(), "gameserver-browser-"));
  #child = null;
  #tls;
  #plugins;

  constructor(tls, plugins) {
    this.#tls = tls ? selfSigned(this.#data) : {};
    this.#plugins = plugins ? { GAMESERVER_GAMES_DIR: plugins } : {};
  }

  get origin() {
    return `${this.#tls.GAMESERVER_TLS_CERT_FILE ? "https" : "http"}://${this.address}`;
  }

  async start() {
    const child = spawn(BINARY, [], {
      cwd: this.#data,
      env: {
        GAMESERVER_DATA_DIR: join(this.#data, "data"),
        GAMESERVER_LISTEN: this.address,
        GAMESERVER_ADMIN_LISTEN: "127.0.0.1:0",
        GAMESERVER_JWT_PRIVATE_KEY: signingKey,
        ...this.#tls,
        ...this.#plugins,
      },
      stdio: ["ignore", "ignore", "pipe"],
    });
    this.#child = child;
    this.address = await new Promise((resolve, reject) => {
      const lines = createInterface(child.stderr);
      lines.on("line", (line) => {
        this.log.push(line);
        const listening = line.includes('"admin"') && line.match(/"public":"([^"]+)"/);
        if (listening) resolve(listening[1]);
      });
      child.once("error", reject);
      lines.once("close", () => reject(new Error(`it did not start: ${this.log.at(-1)}`)));
    });
  }

  /// Ends it as a crash would.
  async kill() {
    if (!this.#child || this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const gone = once(this.#child, "exit");
    this.#child.kill("SIGKILL");
    await gone;
  }

  async remove() {
    await this.kill();
    rmSync(this.#data, { recursive: true, force: true });
  }
}

/// Settings that name a certificate, which is made for them.
function selfSigned(folder) {
  const [certificate, key] = ["cert.pem", "key.pem"].map((name) => join(folder, name));
  const subject = ["-subj", "/CN=gameserver test", "-addext", "subjectAltName=IP:127.0.0.1"];
  const kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
  const out = ["-keyout", key, "-out", certificate];
  execFileSync("openssl", ["req", "-x509", "-nodes", "-days", "2", ...kind, ...subject, ...out], {
    stdio: "ignore",
  });
  return { GAMESERVER_TLS_CERT_FILE: certificate, GAMESERVER_TLS_KEY_FILE: key };
}

/// A server and the windows that look at it, each with storage of its own.
class Scene {
  server;
  #windows = [];
  #complaints = [];
  #allowed = [];

  constructor(tls, plugins) {
    this.server = new Server(tls, plugins);
  }

  /// A new window at the page, with `options` for the browser's context.
  async window(options = {}, address = "/") {
    const context = await browser.newContext({
      viewport: DESK,
      reducedMotion: "reduce",
      // Nobody vouches for the certificate of a test.
      ignoreHTTPSErrors: true,
      ...options,
    });
    context.setDefaultTimeout(DEADLINE_MS);
    const complain = (text) => this.#complaints.push(text);
    const checkHost = (request) => {
      const { host } = new URL(request.url());
      if (host !== this.server.address) complain(`it went elsewhere: ${request.url()}`);
    };
    context.on("weberror", (error) => complain(`page error: ${error.error().stack}`));
    context.on("console", (message) => {
      if (["error", "warning"].includes(message.type())) complain(`console: ${message.text()}`);
    });
    context.on("request", checkHost);
    context.on("page", (page) => {
      this.#windows.push(page);
      page.on("websocket", checkHost);
    });
    await context.exposeFunction("complainOfPolicy", (text) => complain(`policy: ${text}`));
    await context.addInitScript(() =>
      document.addEventListener("securitypolicyviolation", (event) =>
        window.complainOfPolicy(`${event.violatedDirective} ${event.blockedURI}`),
      ),
    );
    const page = await context.newPage();
    await page.goto(new URL(address, this.server.origin).href);
    return page;
  }

  /// A window whose player has chosen a name and is let in as a guest.
  async guest(name, options = {}, address = "/") {
    const page = await this.window(options, address);
    await page.getByLabel("Your name").fill(name);
    await page.getByRole("button", { name: "Play as a guest" }).click();
    await page.getByRole("button", { name: `Account of ${name}` }).waitFor();
    return page;
  }

  /// Says that the browser itself will complain: of a refusal that the test is about.
  allow(complaint) {
    this.#allowed.push(complaint);
  }

  checkComplaints() {
    const wrong = this.#complaints.filter((text) => !this.#allowed.some((ok) => ok.test(text)));
    assert.deepEqual(wrong, []);
  }

  /// Shows what there is to see of a failure.
  async explain() {
    const log = this.server.log.slice(-LOG_LINES_MAX).join("\n");
    console.error(`--- the server:\n${log}\n--- complaints:\n${this.#complaints.join("\n")}`);
    for (const page of this.#windows) {
      const text = await page.locator("body").innerText({ timeout: 1000 }).catch(String);
      console.error(`--- a window at ${page.url()}:\n${text}`);
    }
  }

  async close() {
    await Promise.all(this.#windows.map((page) => page.context().close()));
    await this.server.remove();
  }
}

/// Waits until `page` says whose turn it is, or how it ended.
export function status(page, text) {
  return page.getByTestId("status").filter({ hasText: text }).waitFor();
}

/// Waits until an element is there with this text.
export function reads(locator, text) {
  return locator.filter({ hasText: text }).waitFor();
}

/// Waits until `ask` of the page's document is true.
export function until(page, ask, argument) {
  return page.waitForFunction(ask, argument);
}

/// The board's button whose label begins with `label`.
export function cell(page, label) {
  return page.getByTestId("board").getByRole("button", { name: new RegExp(`^${label}`) });
}

/// Quick play of a game, from the lobby.
export async function quickPlay(page, game) {
  await page.getByTestId(`game-${game}`).getByRole("button", { name: "Quick play" }).click();
  await page.getByTestId("board").waitFor();
}

/// Opens a match through the page's own form and gives its invitation link.
export async function create(page, game, { isPrivate = false, ...numbers } = {}) {
  await page.getByTestId(`game-${game}`).getByRole("button", { name: "New match" }).click();
  const dialog = page.getByRole("dialog");
  for (const [label, value] of Object.entries(numbers)) {
    await dialog.getByLabel(label).fill(String(value));
  }
  if (isPrivate) await dialog.getByLabel("Friends").check();
  await dialog.getByRole("button", { name: "Create match" }).click();
  const link = page.getByTestId("invite-link");
  await link.waitFor();
  return link.inputValue();
}

/// Two guests in a running match of tic-tac-toe: the first has the cross and begins.
export async function twoAtTicTacToe(stage, [first, second] = [{}, {}]) {
  const ann = await stage.guest("Ann", first);
  await quickPlay(ann, "tictactoe");
  await status(ann, "Waiting for another player");
  const ben = await stage.guest("Ben", second);
  await quickPlay(ben, "tictactoe");
  await Promise.all([status(ann, "Your turn"), status(ben, "Ann’s turn")]);
  return [ann, ben];
}

/// Plays cells in turn, by the names the cells have: Ann's, Ben's, Ann's …
export async function playCells([ann, ben], labels) {
  for (const [turn, label] of labels.entries()) {
    const [mover, other] = turn % 2 ? [ben, ann] : [ann, ben];
    await cell(mover, `${label}: empty`).click();
    await cell(other, `${label}: ${turn % 2 ? "O" : "X"}`).waitFor();
  }
}

/// A match that Ann wins in five moves.
export const ANN_WINS = ["top left", "centre", "top centre", "bottom left", "top right"];
