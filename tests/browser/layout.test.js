// Every page: that it fits the screen, and that it can be used without seeing or pointing.

import assert from "node:assert/strict";

import {
  ANN_WINS,
  DESK,
  NOT_FOUND,
  NO_SERVER,
  PHONE,
  cell,
  create,
  playCells,
  quickPlay,
  reads,
  scene,
  status,
  twoAtTicTacToe,
} from "./helpers.js";

/// As wide as a name can be.
const WIDE = "W".repeat(32);
const CONTROLS = new Set([
  "button",
  "link",
  "textbox",
  "checkbox",
  "radio",
  "slider",
  "spinbutton",
  "DisclosureTriangle",
]);

/// Looks at a page in both sizes, and at its accessibility tree as the browser makes it.
async function inspect(page, what) {
  for (const size of [PHONE, DESK]) {
    await page.setViewportSize(size);
    const [wide, room] = await page.evaluate(() => {
      const { scrollWidth, clientWidth } = document.documentElement;
      return [scrollWidth, clientWidth];
    });
    assert.ok(wide <= room, `${what}: ${wide} pixels wide where there are ${size.width}`);
  }
  const devtools = await page.context().newCDPSession(page);
  const { nodes } = await devtools.send("Accessibility.getFullAXTree");
  await devtools.detach();
  const shown = nodes.filter(({ ignored }) => !ignored);
  const nameless = shown.filter(
    ({ role, name }) => CONTROLS.has(role.value) && !name?.value.trim(),
  );
  assert.deepEqual(
    nameless.map(({ role }) => role.value),
    [],
    `${what}: controls without a name`,
  );
  assert.equal(await page.locator("h1:visible").count(), 1, `${what}: one main heading`);
}

/// Goes through a page by Tab: each control that can be used is reached, and seen to be.
async function tabThrough(page, what) {
  const control = ":is(button, a, input, summary):not([tabindex='-1']):not(:disabled)";
  const wanted = await page.locator(`main ${control}:visible`).count();
  await page.locator("main").focus();
  const reached = [];
  for (;;) {
    await page.keyboard.press("Tab");
    const at = await page.evaluate((selector) => {
      const element = document.activeElement;
      if (!element.closest("main")) return null;
      const { outlineStyle, outlineWidth } = getComputedStyle(element);
      const outline = outlineStyle === "none" ? 0 : Number.parseFloat(outlineWidth);
      return { name: element.outerHTML, outline, isControl: element.matches(selector) };
    }, control);
    if (!at) break;
    // A list that scrolls gets the focus too, so that keys can scroll it.
    if (!at.isControl) continue;
    assert.ok(at.outline >= 2, `${what}: the focus shows on ${at.name}`);
    reached.push(at.name);
  }
  assert.equal(reached.length, wanted, `${what}: Tab reaches ${reached.join("\n")}`);
}

scene("welcome, accounts, lobby", async (stage) => {
  const page = await stage.window();
  for (const way of ["As a guest", "Sign in", "New account"]) {
    await page.locator(".tabs").getByRole("button", { name: way }).click();
    await inspect(page, way);
    await tabThrough(page, way);
  }
  const ann = await stage.guest(WIDE);
  await reads(ann.getByTestId("open"), "Nobody waits just now");
  await inspect(ann, "an empty lobby");
  await ann.getByRole("button", { name: "Account of" }).click();
  await inspect(ann, "the account");
  await ann.keyboard.press("Escape");
  await ann.getByTestId("game-pairs").getByRole("button", { name: "New match" }).click();
  await inspect(ann, "a new match");
  await ann.keyboard.press("Escape");

  const ben = await stage.guest("Ben");
  await create(ann, "pairs", { "Pairs of cards": 32, Players: 8 });
  await ben.getByTestId("open").getByRole("link", { name: /^Join/ }).waitFor();
  const pages = await twoAtTicTacToe(stage);
  await ben
    .getByTestId("running")
    .getByRole("link", { name: /^Watch/ })
    .waitFor();
  await ben.getByText("Games without a board here").click();
  await inspect(ben, "a full lobby");
  await tabThrough(ben, "a full lobby");
  await playCells(pages, ANN_WINS);
  await pages[0].getByRole("button", { name: "Back to the lobby" }).click();
  await pages[0]
    .getByTestId("mine")
    .getByRole("link", { name: /^Replay/ })
    .waitFor();
  await inspect(pages[0], "a lobby with a past match");
});

scene("matches", async (stage) => {
  const ann = await stage.guest(WIDE);
  await quickPlay(ann, "tictactoe");
  await ann.getByTestId("invite-link").waitFor();
  await inspect(ann, "waiting");
  await tabThrough(ann, "waiting");
  const ben = await stage.guest("Ben");
  await quickPlay(ben, "tictactoe");
  await status(ann, "Your turn");
  await ben.getByLabel("Say something").fill("W".repeat(300));
  await ben.keyboard.press("Enter");
  await ann.getByRole("log").getByRole("listitem").waitFor();
  await inspect(ann, "in play");
  await tabThrough(ann, "in play");
  await ann.getByRole("button", { name: "Resign" }).click();
  await inspect(ann, "about to resign");
  await ann.keyboard.press("Escape");

  // Screen readers are told of turns and of what happens.
  const live = (page) => page.locator("[aria-live=polite][data-testid=status]");
  await reads(live(ann), "Your turn – you are X");
  await playCells([ann, ben], ANN_WINS.slice(0, 1));
  await reads(live(ben), "Your turn – you are O");
  await reads(live(ben), `${WIDE} took the top left.`);
  const labels = await ben
    .getByTestId("board")
    .getByRole("button")
    .evaluateAll((cells) => cells.map((one) => one.ariaLabel));
  assert.equal(labels.length, 9);
  assert.equal(new Set(labels.map((label) => label.split(":")[0])).size, 9, String(labels));
  assert.ok(await ann.locator("[aria-live=polite][data-testid=connection]").count());

  stage.allow(NO_SERVER);
  await stage.server.kill();
  await reads(ann.getByTestId("connection"), "Connection lost");
  await inspect(ann, "the connection lost");
  await stage.server.start();
  await ann.getByTestId("connection").waitFor({ state: "hidden" });
  await status(ben, "Your turn");
  await cell(ben, "centre: empty").click();
  await cell(ann, "centre: O").waitFor();
  for (const [page, label] of [
    [ann, "top centre"],
    [ben, "bottom left"],
    [ann, "top right"],
  ]) {
    await cell(page, `${label}: empty`).click();
  }
  await ben.getByTestId("playback-step").waitFor();
  await inspect(ben, "over, with playback");
  await tabThrough(ben, "over, with playback");
});

scene("pairs, invitations, errors", async (stage) => {
  const ann = await stage.guest("Ann");
  const link = await create(ann, "pairs", { isPrivate: true, "Pairs of cards": 32, Players: 2 });
  await inspect(ann, "a private match of pairs");
  const ben = await stage.window({}, link);
  await inspect(ben, "an invitation");
  await ben.getByRole("button", { name: "Play as a guest" }).click();
  await status(ann, "Your turn");
  await cell(ann, "Card 64: face down").click();
  await ben.locator('[data-place="63"].up').waitFor();
  await inspect(ben, "pairs in play");
  stage.allow(NOT_FOUND);
  await ben.goto(`${stage.server.origin}/#/m/nowhere`);
  await ben.getByRole("heading", { name: "That did not work" }).waitFor();
  await inspect(ben, "an error");
});

scene("an arena", async (stage) => {
  const ann = await stage.guest(WIDE);
  const link = await create(ann, "arena", { Rounds: 1, Players: 2 });
  await inspect(ann, "an arena that waits");
  const ben = await stage.guest("Ben", { hasTouch: true }, link);
  await status(ben, "Round 1 of 1");
  await inspect(ben, "an arena in play");
  await tabThrough(ann, "an arena in play");
  // Nobody turns: both meet the edge in the same step.
  await status(ben, "It is a draw.");
  await ben.getByTestId("playback-step").waitFor();
  await inspect(ben, "an arena that is over");
  await tabThrough(ben, "an arena that is over");
});
