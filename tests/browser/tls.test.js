// A match through TLS: the page, its calls and its socket.

import assert from "node:assert/strict";

import { ANN_WINS, playCells, quickPlay, scene, status } from "./helpers.js";

scene(
  "a match is played over https and wss",
  async (stage) => {
    const ann = await stage.guest("Ann");
    const shown = await (await ann.reload()).securityDetails();
    assert.deepEqual([shown.protocol, shown.subjectName], ["TLS 1.3", "gameserver test"]);
    const socket = ann.waitForEvent("websocket");
    await quickPlay(ann, "tictactoe");
    assert.ok((await socket).url().startsWith(`wss://${stage.server.address}/`));
    const ben = await stage.guest("Ben");
    await quickPlay(ben, "tictactoe");
    await Promise.all([status(ann, "Your turn"), status(ben, "Ann’s turn")]);
    await playCells([ann, ben], ANN_WINS);
    await Promise.all([status(ann, "You won"), status(ben, "Ann won")]);
  },
  { tls: true },
);
