// Whole matches in two windows, with the server killed in the middle.

import assert from "node:assert/strict";

import {
  NO_SERVER,
  PHONE,
  cell,
  create,
  playCells,
  reads,
  scene,
  status,
  twoAtTicTacToe,
} from "./helpers.js";

/// Kills the server and, once both have seen it, does `meanwhile`, starts it again and waits until
/// both are back.
async function crash(stage, pages, meanwhile = () => {}) {
  stage.allow(NO_SERVER);
  await stage.server.kill();
  const signs = pages.map((page) => page.getByTestId("connection"));
  await Promise.all(signs.map((sign) => reads(sign, "Connection lost")));
  await meanwhile();
  await stage.server.start();
  await Promise.all(signs.map((sign) => sign.waitFor({ state: "hidden" })));
}

/// Moves the focus by Tab alone until it is on the board.
async function tabToBoard(page) {
  const onBoard = () => document.activeElement.closest("[data-testid=board]") !== null;
  for (let presses = 0; !(await page.evaluate(onBoard)); presses++) {
    assert.ok(presses < 20, "Tab leads to the board");
    await page.keyboard.press("Tab");
  }
}

scene("tic-tac-toe by mouse and by keyboard, through a crash", async (stage) => {
  const [ann, ben] = await twoAtTicTacToe(stage);
  await cell(ann, "top left: empty").click();
  await status(ben, "Your turn – you are O");
  await tabToBoard(ben);
  await ben.keyboard.press("ArrowDown");
  await ben.keyboard.press("ArrowRight");
  await ben.keyboard.press("Enter");
  await cell(ann, "centre: O").waitFor();
  await status(ann, "Your turn – you are X");

  // A move that is made while there is no server waits for it.
  await crash(stage, [ann, ben], () => cell(ann, "top centre: empty").click());
  for (const page of [ann, ben]) {
    for (const label of ["top left: X", "centre: O", "top centre: X"]) {
      await cell(page, label).waitFor();
    }
  }
  await status(ben, "Your turn");
  assert.equal(await ben.evaluate(() => document.activeElement.dataset.place), "4");
  await ben.keyboard.press("End");
  await ben.keyboard.press(" ");
  await cell(ann, "bottom right: O").waitFor();
  await cell(ann, "top right: empty").click();
  await Promise.all([status(ann, "You won!"), status(ben, "Ann won.")]);
  await Promise.all([ann, ben].map((page) => status(page, "Three in a row.")));
  const told = await ben.locator(".moves li").allTextContents();
  assert.deepEqual(told.reverse().slice(-6), [
    "Ann took the top left.",
    "You took the centre.",
    "Ann took the top centre.",
    "You took the bottom right.",
    "Ann took the top right.",
    "Ann won.",
  ]);
  const ratings = await ben.locator(".players [title=Rating]").allTextContents();
  assert.deepEqual(ratings, ["1662 (+162)", "1338 (−162)"]);
});

scene("a draw and a resignation are said in words", async (stage) => {
  const pages = await twoAtTicTacToe(stage);
  await playCells(pages, [
    ...["top left", "centre", "bottom right", "top centre", "bottom centre"],
    ...["bottom left", "top right", "right", "left"],
  ]);
  await Promise.all(pages.map((page) => status(page, "It is a draw.")));

  const [ann, ben] = await twoAtTicTacToe(stage);
  await ben.getByRole("button", { name: "Resign" }).click();
  await ben.getByRole("dialog").getByRole("button", { name: "Resign" }).click();
  await Promise.all([status(ann, "You won!"), status(ben, "Ann won.")]);
  await status(ann, "By resignation.");
});

scene("pairs by mouse and by touch, through a crash", async (stage) => {
  const ann = await stage.guest("Ann");
  const link = await create(ann, "pairs", { "Pairs of cards": 3, Players: 2 });
  const ben = await stage.guest("Ben", { viewport: PHONE, hasTouch: true, isMobile: true }, link);
  const players = [
    { page: ann, press: (card) => card.click(), found: 0 },
    { page: ben, press: (card) => card.tap(), found: 0 },
  ];
  const pages = [ann, ben];
  const known = new Map();
  const taken = new Set();
  let turn = 0;

  /// Turns a card over and gives its picture's name, which both must see.
  const flip = async (place) => {
    const { page, press } = players[turn];
    await status(page, "Your turn");
    await press(cell(page, `Card ${place + 1}: face down`));
    const up = (one) => one.locator(`[data-place="${place}"].up`);
    await Promise.all(pages.map((one) => up(one).waitFor()));
    const labels = await Promise.all(pages.map((one) => up(one).getAttribute("aria-label")));
    const [face, other] = labels.map((label) => label.match(/^Card \d+: ([^,]+)/)[1]);
    assert.equal(face, other);
    known.set(place, face);
    return face;
  };
  /// The place of a card to turn: the other one of `face` if it has been seen, else a new one.
  const choose = (face, first) => {
    const free = [0, 1, 2, 3, 4, 5].filter((place) => !taken.has(place) && place !== first);
    const partner = free.find((place) => known.has(place) && known.get(place) === face);
    return partner ?? free.find((place) => !known.has(place)) ?? free[0];
  };

  for (let round = 0; taken.size < 6; round++) {
    const first = choose(null, null);
    const face = await flip(first);
    if (round === 0) {
      await crash(stage, pages);
      for (const page of pages) await cell(page, `Card ${first + 1}: ${face}`).waitFor();
    }
    const second = choose(face, first);
    if ((await flip(second)) === face) {
      taken.add(first).add(second);
      players[turn].found += 1;
      const owned = (page) => page.locator(`[data-place="${second}"][data-owner="${turn}"]`);
      await Promise.all(pages.map((page) => owned(page).waitFor()));
    } else {
      for (const page of pages) await cell(page, `Card ${second + 1}: face down`).waitFor();
      turn = 1 - turn;
    }
  }
  const winner = Number(players[1].found > players[0].found);
  await status(pages[winner], "You won!");
  await status(pages[1 - winner], `${["Ann", "Ben"][winner]} won.`);
  for (const page of pages) {
    await status(page, `${players[winner].found} of 3 pairs.`);
    const scores = await page.locator(".players .score").allTextContents();
    assert.deepEqual(
      scores.map(Number),
      players.map(({ found }) => found),
    );
  }
});

scene("the same player in a second window takes the match over, and back", async (stage) => {
  const [ann, ben] = await twoAtTicTacToe(stage);
  const twin = await ann.context().newPage();
  // A window that is opened from another has a copy of its storage.
  const stored = await ann.evaluate(() => sessionStorage.getItem("gameserver.session"));
  await twin.addInitScript((value) => {
    const tokens = { ...JSON.parse(value), slot: "another" };
    sessionStorage.setItem("gameserver.session", JSON.stringify(tokens));
  }, stored);
  await twin.goto(ann.url());
  await status(twin, "Your turn");
  await reads(ann.getByTestId("connection"), "open in another window");
  await ann.getByRole("button", { name: "Play here" }).click();
  await reads(twin.getByTestId("connection"), "open in another window");
  await cell(ann, "centre: empty").click();
  await status(ben, "Your turn");
});
