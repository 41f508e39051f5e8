// Games that the page knows nothing of: views as JSON, and commands by hand.

import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after } from "node:test";

import { GAMES, create, quickPlay, reads, scene, status } from "./helpers.js";

/// A folder with a game that does not know its own event when it is to apply it.
const broken = mkdtempSync(join(tmpdir(), "gameserver-browser-"));
after(() => rmSync(broken, { recursive: true }));
const code = readFileSync(join(GAMES, "noughts.wasm"));
const key = code.lastIndexOf(Buffer.from('"placed"', "utf16le"));
code.write("P", key + 2);
writeFileSync(join(broken, "broken.wasm"), code);

const command = (page) => page.getByLabel("Command, as JSON");

async function send(page, text) {
  await command(page).fill(text);
  await command(page).press("Enter");
}

/// What a window shows of its match.
const view = (page) => page.getByTestId("view");
const seen = async (page) => JSON.parse(await view(page).textContent());

scene(
  "a plugin is played by its views and commands, and played back",
  async (stage) => {
    const ann = await stage.guest("Ann");
    await quickPlay(ann, "noughts");
    await status(ann, "Waiting for another player");
    const ben = await stage.guest("Ben");
    await quickPlay(ben, "noughts");
    await Promise.all([status(ann, "Your turn"), status(ben, "Ann’s turn")]);

    // What the server refuses, it explains.
    const wrong = ben.getByTestId("board").getByRole("alert");
    await send(ben, '{"place": 0}');
    await reads(wrong, "another seat is to move");
    await send(ben, "{place");
    await reads(wrong, /JSON/);

    const cells = Array(9).fill(null);
    for (const [turn, cell] of [0, 4, 1, 6, 2].entries()) {
      const mover = turn % 2 ? ben : ann;
      await send(mover, JSON.stringify({ place: cell }));
      cells[cell] = turn % 2;
      const board = JSON.stringify(cells);
      await Promise.all([ann, ben].map((page) => reads(view(page), board)));
      if (turn < 4) await status(turn % 2 ? ann : ben, "Your turn");
    }
    await Promise.all([status(ann, "You won!"), status(ben, "Ann won.")]);
    assert.deepEqual(await seen(ben), { board: cells, turn: null });
    const told = await ben.locator(".moves li").allTextContents();
    assert.deepEqual(told.slice(0, 3), ["Ann won.", 'Ann: {"placed":2}', 'You: {"placed":6}']);

    const step = (text) => reads(ben.getByTestId("playback-step"), text);
    await step("Step 6 of 6: Ann won.");
    await ben.getByRole("button", { name: "Previous step" }).click();
    await step('Step 5 of 6: Ann: {"placed":2}');
    assert.deepEqual(await seen(ben), { seat: 0, event: { placed: 2 } });
    await ben.getByRole("button", { name: "Last step" }).click();
    await reads(view(ben), JSON.stringify(cells));

    await ben.getByRole("button", { name: "Back to the lobby" }).click();
    await ben.getByTestId("mine").getByRole("link", { name: "Replay: Noughts" }).click();
    await step("Step 6 of 6: Ann won.");
    await reads(view(ben), JSON.stringify(cells));
  },
  { plugins: GAMES },
);

scene(
  "what the clock moves is seen moving, and old commands come back by the arrow keys",
  async (stage) => {
    const ann = await stage.guest("Ann");
    const link = await create(ann, "cycles", { "Options, as JSON": '{"rounds": 1, "size": 160}' });
    const ben = await stage.guest("Ben", {}, link);
    await Promise.all([ann, ben].map((page) => status(page, /^Step \d+/)));
    const start = (await seen(ann)).heads[0];
    await send(ann, '{"turn": "up"}');
    await reads(ann.locator(".moves"), '"turn":"up"');
    await command(ann).press("ArrowUp");
    assert.equal(await command(ann).inputValue(), '{"turn": "up"}');
    // Past the countdown: up, as Ann wished.
    await ann.waitForFunction(
      ([x, y]) => {
        const [head] = JSON.parse(document.querySelector(".view").textContent).heads;
        return head[0] === x && head[1] < y;
      },
      start,
    );
    await ann.getByRole("button", { name: "Resign" }).click();
    await ann.getByRole("dialog").getByRole("button", { name: "Resign" }).click();
    await Promise.all([status(ann, "Ben won."), status(ben, "You won!")]);
    await reads(ben.getByTestId("playback-step"), "You won!");
  },
  { plugins: GAMES },
);

scene(
  "a game that fails is over, and nobody wins",
  async (stage) => {
    const ann = await stage.guest("Ann");
    await quickPlay(ann, "broken");
    const ben = await stage.guest("Ben");
    await quickPlay(ben, "broken");
    await status(ann, "Your turn");
    await send(ann, '{"place": 0}');
    await Promise.all([ann, ben].map((page) => status(page, "The game has failed: nobody wins.")));
    await reads(ben.getByTestId("playback-step"), "The game has failed: nobody wins.");
    await ben.getByRole("button", { name: "Back to the lobby" }).click();
    await reads(ben.getByTestId("mine"), "the game failed");
  },
  { plugins: broken },
);
