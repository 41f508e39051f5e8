// A finished match, step by step.

import assert from "node:assert/strict";

import { ANN_WINS, playCells, reads, scene, status, twoAtTicTacToe } from "./helpers.js";

scene("a finished match can be played back step by step", async (stage) => {
  const pages = await twoAtTicTacToe(stage);
  await playCells(pages, ANN_WINS);
  const [, ben] = pages;
  await status(ben, "Ann won.");
  await ben.getByRole("button", { name: "Back to the lobby" }).click();
  await ben.getByTestId("mine").getByRole("link", { name: "Replay: Tic-tac-toe, Ann" }).click();

  const step = (text) => reads(ben.getByTestId("playback-step"), text);
  const press = (name) => ben.getByRole("button", { name, exact: true }).click();
  /// The board, as one letter for each cell.
  const board = () =>
    ben
      .getByTestId("board")
      .getByRole("button")
      .evaluateAll((cells) =>
        cells.map((one) => one.ariaLabel.match(/(X|O|empty)$/)[0][0]).join(""),
      );

  await step("Step 6 of 6: Ann won.");
  await press("First step");
  const texts = [
    "The match began.",
    "Ann took the top left.",
    "You took the centre.",
    "Ann took the top centre.",
    "You took the bottom left.",
    "Ann took the top right.",
    "Ann won.",
  ];
  const boards = [
    "eeeeeeeee",
    "Xeeeeeeee",
    "XeeeOeeee",
    "XXeeOeeee",
    "XXeeOeOee",
    "XXXeOeOee",
    "XXXeOeOee",
  ];
  for (const [at, text] of texts.entries()) {
    await step(`Step ${at} of 6: ${text}`);
    assert.equal(await board(), boards[at]);
    if (at < 6) await press("Next step");
  }
  await press("Previous step");
  await press("Previous step");
  await step("Step 4 of 6");
  assert.equal(await board(), boards[4]);
  await press("Play");
  await step("Step 6 of 6");
  assert.equal(await board(), boards[6]);
  await ben.getByRole("slider", { name: "Step" }).press("Home");
  await step("Step 0 of 6");
  await press("Last step");
  await step("Step 6 of 6");
});
