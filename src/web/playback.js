// Plays a finished match back step by step, from its log: a step is an event, or, where the clock
// moves the game, what the game's own rules make of all of them.

import { h, say, set, svg } from "./dom.js";

const STEP_MS = 900;
const EVENTS_PAGE = 200;

/// What the buttons show, by what they do.
const ICONS = {
  "First step": "M5 5h2.5v14H5zM19 5v14L8.5 12z",
  "Previous step": "M17 5v14L6.5 12z",
  Play: "M7 4v16l13-8z",
  Pause: "M6 5h4v14H6zM14 5h4v14h-4z",
  "Next step": "M7 5v14l10.5-7z",
  "Last step": "M16.5 5H19v14h-2.5zM5 5v14l10.5-7z",
};

export class Playback {
  element;

  #steps = [];
  #at = 0;
  #stepMs = STEP_MS;
  #timer = 0;
  #onstep;
  #slider = h("input", { type: "range", min: 0, "aria-label": "Step" });
  #text = h("p.quiet", { "aria-live": "polite", "data-testid": "playback-step" });
  #play = h("button.icon.primary", { type: "button", onclick: () => this.#toggle() });

  /// `onstep` is called when another state is to be shown.
  constructor(onstep) {
    this.#onstep = onstep;
    this.#slider.addEventListener("input", () => this.#jump(this.#slider.valueAsNumber));
    const jump = (label, to) => {
      const button = h("button.icon", { type: "button", onclick: () => this.#jump(to()) });
      return withIcon(button, label);
    };
    const buttons = [
      jump("First step", () => 0),
      jump("Previous step", () => this.#at - 1),
      withIcon(this.#play, "Play"),
      jump("Next step", () => this.#at + 1),
      jump("Last step", () => this.#end),
    ];
    const properties = { role: "group", "aria-label": "Playback", hidden: true };
    const title = h("h2", "Play it back");
    const row = h("div.row.centred", ...buttons);
    this.element = h("div.panel.playback", properties, title, this.#slider, row, this.#text);
  }

  /// The state at the chosen step; null while there is nothing to play back.
  get state() {
    return this.#steps[this.#at]?.state ?? null;
  }

  /// Reads a match's log and shows its end. `start` is the state before the log, `tell` says what
  /// an event of a seat means; `steps`, where there is one, makes a log's steps, `stepMs` apart.
  async load(session, match, { start, apply, tell, steps, stepMs }) {
    const events = await readLog(session, match);
    const begin = events.findIndex(({ event }) => event.started);
    if (begin < 0) return;
    let state = start;
    this.#stepMs = stepMs ?? STEP_MS;
    this.#steps = steps?.(events) ?? events.slice(begin).map(({ seat, event }) => {
      state = apply(state, seat, event);
      return { state, text: tell(event, seat) };
    });
    set(this.#slider, "max", this.#end);
    this.element.hidden = false;
    this.#show(this.#end);
  }

  close() {
    clearInterval(this.#timer);
    this.#timer = 0;
  }

  get #end() {
    return this.#steps.length - 1;
  }

  #toggle() {
    if (this.#timer) {
      this.close();
      this.#show(this.#at);
      return;
    }
    this.#timer = setInterval(() => this.#show(this.#at + 1), this.#stepMs);
    this.#show(this.#at === this.#end ? 0 : this.#at);
  }

  #jump(at) {
    this.close();
    this.#show(at);
  }

  #show(at) {
    this.#at = Math.max(0, Math.min(at, this.#end));
    if (this.#at === this.#end) this.close();
    this.#slider.value = this.#at;
    const place = `${this.#at} of ${this.#end}`;
    set(this.#slider, "aria-valuetext", place);
    // Nobody can listen to so many.
    set(this.#text, "aria-live", this.#timer && this.#stepMs < STEP_MS ? "off" : "polite");
    say(this.#text, `Step ${place}: ${this.#steps[this.#at].text}`);
    withIcon(this.#play, this.#timer ? "Pause" : "Play");
    this.#onstep();
  }
}

async function readLog(session, match) {
  const events = [];
  let page;
  do {
    const query = `after=${events.at(-1)?.seq ?? 0}&limit=${EVENTS_PAGE}`;
    page = (await session.request("GET", `/v1/matches/${match}/events?${query}`)).items;
    events.push(...page);
  } while (page.length && !events.at(-1).event.ended);
  return events;
}

function withIcon(button, label) {
  if (button.getAttribute("aria-label") === label) return button;
  const path = svg("path", { d: ICONS[label] });
  button.replaceChildren(svg("svg", { viewBox: "0 0 24 24", "aria-hidden": "true" }, path));
  set(button, "aria-label", label);
  return button;
}
