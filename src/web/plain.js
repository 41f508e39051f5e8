// The board of a game that this page knows nothing of: what there is to see as JSON, and a line for
// commands. It has the shape of the boards in `boards.js`, but that `see` takes a view of any form.

import { h, say, set } from "./dom.js";

/// Values that are no longer than this stand on one line, in characters.
const LINE_MAX = 60;
/// Of an event, so much is told, in characters.
const TOLD_MAX = 200;
/// Commands that the arrow keys bring back.
const HISTORY_MAX = 50;

/// What is known of a view: a `turn` and `scores` are what they are called, if they are there.
function see(view, tick) {
  const turn = Number.isInteger(view?.turn) ? view.turn : null;
  const scores = Array.isArray(view?.scores) ? view.scores : undefined;
  return { view, tick, turn, scores };
}

function told(value) {
  const text = JSON.stringify(value);
  return text.length > TOLD_MAX ? `${text.slice(0, TOLD_MAX)} …` : text;
}

/// JSON in lines, as people write it.
function pretty(value, indent = "") {
  const flat = JSON.stringify(value);
  // The whole is always in lines, so that it stays where it is as it grows.
  const room = indent ? LINE_MAX - indent.length : "{}".length;
  if (value === null || typeof value !== "object" || flat.length <= room) return flat;
  const [list, deeper] = [Array.isArray(value), `${indent}  `];
  const items = Object.entries(value).map(([name, item]) => {
    return `${deeper}${list ? "" : `${JSON.stringify(name)}: `}${pretty(item, deeper)}`;
  });
  return `${list ? "[" : "{"}\n${items.join(",\n")}\n${indent}${list ? "]" : "}"}`;
}

export const plain = {
  see,
  role: () => null,
  seats: () => 0,
  start: (view) => see(view),
  // What an event means, the server alone knows.
  apply: (state) => state,
  allows: () => true,
  pause: () => 0,
  sum: () => "",
  unit: "points",

  tell(event, who) {
    if (!event.inputs) return `${who}: ${told(event)}`;
    return `Step ${event.tick}: ${told(event.inputs.map(({ seat, input }) => ({ seat, input })))}`;
  },

  headline({ turn, tick }, seat, name, last) {
    if (turn !== null) return [turn === seat ? "Your turn" : `${name(turn)}’s turn`, last];
    return [tick === undefined ? "It is played." : `Step ${tick}`, last];
  },

  /// A step shows its event, and the last one what came of all of them.
  replay(view, events, _name, tell) {
    const end = see(view);
    const begin = events.findIndex(({ event }) => event.started);
    return events.slice(begin).map(({ seat, event }) => {
      const state = event.ended ? end : { ...end, scores: undefined, shown: { seat, event } };
      return { state, text: tell(event, seat) };
    });
  },

  mount(_state, act) {
    const view = h("pre.view", { tabindex: 0, "aria-label": "What you see", "data-testid": "view" });
    const input = h("input.code", {
      "aria-label": "Command, as JSON",
      placeholder: "A command as JSON",
      autocomplete: "off",
      autocapitalize: "none",
      spellcheck: "false",
    });
    const wrong = h("p.wrong", { role: "alert" });
    const history = [];
    let at = 0;
    const onsubmit = async (event) => {
      event.preventDefault();
      const text = input.value.trim();
      try {
        say(wrong, "");
        const command = JSON.parse(text);
        if (history.at(-1) !== text) history.push(text);
        if (history.length > HISTORY_MAX) history.shift();
        at = history.length;
        input.value = "";
        await act(command);
      } catch (problem) {
        say(wrong, problem.message);
      }
    };
    input.addEventListener("keydown", (event) => {
      const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
      if (!step || !history.length) return;
      event.preventDefault();
      at = Math.max(0, Math.min(at + step, history.length));
      input.value = history[at] ?? "";
    });
    const form = h("form", { onsubmit }, h("div.row", input, h("button", "Send command")), wrong);
    const properties = { role: "group", "aria-label": "Board", "data-testid": "board" };
    const element = h("div.plain", properties, view, form);
    const draw = ({ view: seen, shown }, { canAct }) => {
      say(view, pretty(shown ?? seen));
      set(form, "hidden", !canAct);
    };
    return { element, draw };
  },
};
