// Light cycles: a whole match in two windows, by keyboard and by touch, and the page's copy of the
// rules, step by step beside the server's.

import assert from "node:assert/strict";

import { begin, leave, step } from "../../src/web/arena.js";
import { PHONE, create, reads, scene, status } from "./helpers.js";

/// What the server shows of a state.
const SHOWN = [
  ...["size", "round", "rounds", "starts_at", "decided_at"],
  ...["heads", "headings", "riding", "scores", "walls"],
];

const shown = (state) => JSON.stringify(SHOWN.map((name) => state[name]));

/// Runs in a page: plays a match by chance to its end with so many players, the last of whom gives
/// up in the second round if there are more than two. Gives each view by its step, and the log.
async function playByChance(players) {
  // The same each time (Lehmer, MINSTD).
  let state = players;
  const random = () => (state = (state * 48_271) % 2_147_483_647) / 2_147_483_647;
  const call = async (token, method, path, body) => {
    const headers = { "content-type": "application/json" };
    if (token) headers.authorization = `Bearer ${token}`;
    const response = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${path}: ${text}`);
    return text && JSON.parse(text);
  };
  const guest = async () => (await call(null, "POST", "/v1/sessions/guest", {})).access_token;
  const guests = await Promise.all(Array.from({ length: players }, guest));
  const options = { players, rounds: 2, size: 40 };
  const { id } = await call(guests[0], "POST", "/v1/matches", { game: "arena", options });
  for (const token of guests.slice(1)) await call(token, "POST", `/v1/matches/${id}/players`, {});
  const views = [];
  let gaveUp = players === 2;
  const play = async (token, seat) => {
    const { ticket } = await call(token, "POST", "/v1/socket-tickets");
    const path = `/v1/matches/${id}/socket?ticket=${ticket}`;
    const socket = new WebSocket(`ws://${location.host}${path}`);
    let command = 0;
    await new Promise((resolve, reject) => {
      socket.onerror = reject;
      socket.onmessage = ({ data }) => {
        const { type, tick, view } = JSON.parse(data);
        if (type === "ended") resolve();
        if (type !== "view") return;
        views.push([tick, view]);
        if (seat === players - 1 && view.round === 2 && !gaveUp) {
          gaveUp = true;
          call(token, "DELETE", `/v1/matches/${id}/players/me`).catch(reject);
        } else if (random() < 0.1) {
          const turn = ["up", "right", "down", "left"][Math.floor(random() * 4)];
          socket.send(JSON.stringify({ type: "command", id: ++command, command: { turn } }));
        }
      };
    });
    socket.close();
  };
  await Promise.all(guests.map(play));
  const log = [];
  do {
    const query = `after=${log.at(-1)?.seq ?? 0}&limit=200`;
    log.push(...(await call(guests[0], "GET", `/v1/matches/${id}/events?${query}`)).items);
  } while (!log.at(-1).event.ended);
  return { views, log };
}

for (const players of [2, 3, 8]) {
  scene(`the page's rules are the server's, with ${players} players`, async (stage) => {
    const { views, log } = await (await stage.window()).evaluate(playByChance, players);
    const inputs = new Map(log.map(({ event }) => [event.tick, event.inputs]));
    const left = log.flatMap(({ event }) => event.left ?? []);
    // Each step, and what it is once those are gone who left after it.
    let state = begin(views[0][1]);
    const states = new Map();
    const last = Math.max(...views.map(([tick]) => tick));
    while (state.tick < last) {
      const stepped = step(state, inputs.get(state.tick + 1));
      const gone = left.filter(({ tick }) => tick === stepped.tick);
      state = gone.reduce((now, { seat }) => leave(now, seat), stepped);
      states.set(state.tick, [shown(stepped), shown(state)]);
    }
    assert.ok(views.length > 30 * players, `${views.length} views`);
    for (const [tick, view] of views) {
      assert.ok(states.get(tick)?.includes(shown(view)), `${tick}: ${JSON.stringify(view)}`);
    }
    assert.equal(state.over, true);
  });
}

scene("a match by keyboard and by touch, played back, and another one", async (stage) => {
  const ann = await stage.guest("Ann");
  const link = await create(ann, "arena", { Rounds: 1, Players: 2 });
  const ben = await stage.guest("Ben", { viewport: PHONE, hasTouch: true, isMobile: true }, link);
  await Promise.all([ann, ben].map((page) => status(page, "Round 1 of 1")));
  const board = (page, said) => page.getByRole("img", { name: `Arena, round 1 of 1: ${said}` });
  await board(ann, "all ride").waitFor();

  /// Waits until the server has turned a player's rider.
  const rides = (page, to) =>
    page.locator(`[data-to="${to}"][aria-pressed="true"]`).waitFor({ state: "attached" });
  await rides(ann, "right");
  await ann.keyboard.press("ArrowUp");
  await rides(ann, "up");
  await ben.getByRole("button", { name: "Turn down" }).tap();
  await rides(ben, "down");
  // A swipe: a finger and a mouse are the same to the board.
  const { x, y } = await ben.getByTestId("board").boundingBox();
  await ben.mouse.move(x + 150, y + 100);
  await ben.mouse.down();
  await ben.mouse.move(x + 90, y + 105, { steps: 3 });
  await ben.mouse.up();
  await rides(ben, "left");

  // Ann is at the edge first.
  await Promise.all([status(ann, "Ben won."), status(ben, "You won!")]);
  await Promise.all([ann, ben].map((page) => status(page, "1 point.")));
  assert.deepEqual(await ben.locator(".players .score").allTextContents(), ["0", "1"]);
  const told = await ann.locator(".moves li").allTextContents();
  assert.deepEqual(told.slice(0, 3), ["Ben won.", "Ben won the round.", "You crashed."]);

  const text = ann.getByTestId("playback-step");
  const press = (name) => ann.getByRole("button", { name, exact: true }).click();
  await reads(text, "Ben won the round.");
  await board(ann, "You out").waitFor();
  const [, steps] = (await text.textContent()).match(/^Step (\d+) of \1/);
  await press("First step");
  await reads(text, `Step 0 of ${steps}: The match began.`);
  await board(ann, "all ride").waitFor();
  await press("Play");
  await reads(text, `Step ${steps} of ${steps}: Ben won the round.`);

  await ann.getByRole("button", { name: "Play again" }).click();
  await status(ann, "Waiting for another player");
  await ben.getByRole("button", { name: "Play again" }).click();
  await Promise.all([ann, ben].map((page) => status(page, "Round 1 of 3")));
});
