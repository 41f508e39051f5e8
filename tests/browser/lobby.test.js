// How players find each other.

import assert from "node:assert/strict";

import {
  NOT_FOUND,
  cell,
  create,
  quickPlay,
  reads,
  scene,
  status,
  twoAtTicTacToe,
} from "./helpers.js";

async function say(page, text) {
  await page.getByLabel("Say something").fill(text);
  await page.getByRole("button", { name: "Send" }).click();
}

/// Waits for the last line of the chat.
function hears(page, who, text) {
  const line = page.getByRole("log").getByRole("listitem").last();
  return line.filter({ has: page.getByText(who, { exact: true }), hasText: text }).waitFor();
}

scene("quick play brings two together; others watch; all talk", async (stage) => {
  const [ann, ben] = await twoAtTicTacToe(stage);
  assert.equal(ann.url(), ben.url());

  const eve = await stage.guest("Eve");
  await eve
    .getByTestId("running")
    .getByRole("link", { name: /^Watch: Tic-tac-toe/ })
    .click();
  await reads(eve.locator(".badge"), "Watching");
  await status(eve, "Ann’s turn");
  assert.equal(await eve.getByRole("button", { name: "Resign" }).count(), 0);
  await cell(ann, "centre: empty").click();
  await cell(eve, "centre: X").waitFor();
  await status(eve, "Ben’s turn");

  await say(ann, "Good luck!");
  await Promise.all([hears(ann, "You", "Good luck!"), hears(ben, "Ann", "Good luck!")]);
  await say(ben, "<b>And to you</b>");
  await Promise.all([ann, eve].map((page) => hears(page, "Ben", "<b>And to you</b>")));
  await say(eve, "I cheer for both.");
  await Promise.all([ann, ben].map((page) => hears(page, "Eve", "I cheer for both.")));
});

scene("the lobby shows by itself what others do", async (stage) => {
  const [ann, ben] = [await stage.guest("Ann"), await stage.guest("Ben")];
  const [open, running] = ["open", "running"].map((list) => ben.getByTestId(list));
  await reads(open, "Nobody waits just now");
  await create(ann, "tictactoe");
  await open.getByRole("link", { name: "Join: Tic-tac-toe, Ann" }).waitFor();
  const eve = await stage.guest("Eve");
  await eve.getByTestId("open").getByRole("link", { name: "Join: Tic-tac-toe, Ann" }).click();
  await Promise.all([status(ann, "Your turn"), status(eve, "Ann’s turn")]);
  await running.getByRole("link", { name: "Watch: Tic-tac-toe, Ann, Eve" }).waitFor();
  await reads(open, "Nobody waits just now");
  await eve.goBack();
  await eve.getByTestId("mine").getByRole("link", { name: "Play on: Tic-tac-toe, Ann" }).click();
  await status(eve, "Ann’s turn");
});

scene("a link invites to a private match", async (stage) => {
  const ann = await stage.guest("Ann");
  const link = await create(ann, "pairs", { isPrivate: true, "Pairs of cards": 2 });
  await reads(ann.locator(".badge"), "Private");

  // Who has no link sees nothing of it, not even at its address.
  const eve = await stage.guest("Eve");
  await reads(eve.getByTestId("open"), "Nobody waits just now");
  stage.allow(NOT_FOUND);
  await eve.goto(ann.url());
  await reads(eve.getByRole("alert"), "There is no such match, or it is private.");

  const ben = await stage.window({}, link);
  await ben.getByRole("heading", { name: "You are invited" }).waitFor();
  await ben.getByLabel("Your name").fill("Ben");
  await ben.getByRole("button", { name: "Play as a guest" }).click();
  await Promise.all([status(ann, "Your turn"), status(ben, "Ann’s turn")]);
  // The code does not stay in the address bar.
  assert.equal(ben.url(), ann.url());
});

scene("who comes too late for a seat may watch", async (stage) => {
  const ann = await stage.guest("Ann");
  const link = await create(ann, "tictactoe");
  await stage.guest("Ben", {}, link);
  await status(ann, "Your turn");
  stage.allow(/status of 409/);
  const eve = await stage.guest("Eve", {}, link);
  await reads(eve.locator(".badge"), "Watching");
  await status(eve, "Ann’s turn");
});

scene("an open match can be left", async (stage) => {
  const [ann, ben] = [await stage.guest("Ann"), await stage.guest("Ben")];
  await quickPlay(ann, "pairs");
  await ben.getByRole("link", { name: "Join: Pairs, Ann" }).waitFor();
  await ann.getByRole("button", { name: "Leave match" }).click();
  await ann.getByRole("dialog").getByRole("button", { name: "Leave" }).click();
  await ann.getByRole("heading", { name: "What do you want to play?" }).waitFor();
  await reads(ben.getByTestId("open"), "Nobody waits just now");
});
