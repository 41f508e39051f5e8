// The chat of a match: it lives as long as the page does, since the server keeps none of it.

import { h, say, set } from "./dom.js";

const CHARS_MAX = 500;
const LINES_MAX = 200;
const UNKNOWN = "…";

export class Chat {
  element;

  #session;
  #nameOf;
  /// Names of those who have no seat.
  #names = new Map();
  #lines = h("ol.lines", { role: "log", "aria-label": "Chat" });
  #input = h("input", { "aria-label": "Say something", maxlength: CHARS_MAX, autocomplete: "off" });
  #button = h("button.small", "Send");

  /// `send` gives false where a line can't go out; `nameOf` knows the players' names.
  constructor(session, send, nameOf) {
    this.#session = session;
    this.#nameOf = nameOf;
    const onsubmit = (event) => {
      event.preventDefault();
      const text = this.#input.value.trim();
      if (text && send(text)) this.#input.value = "";
    };
    const form = h("form.row", { onsubmit }, this.#input, this.#button);
    this.element = h("section.chat", h("h2", "Chat"), this.#lines, form);
  }

  /// Lets lines be written, or says in `hint` why not.
  allow(open, hint) {
    this.#input.disabled = this.#button.disabled = !open;
    set(this.#input, "placeholder", hint);
  }

  async heard({ seat, user, text }) {
    const mine = user === this.#session.user?.id;
    const who = h(`b.${seat === null ? "guest" : `ink-${seat}`}`, mine ? "You" : this.#known(user));
    this.#lines.append(h(mine ? "li.mine" : "li", who, h("span", text)));
    if (this.#lines.children.length > LINES_MAX) this.#lines.firstChild.remove();
    this.#lines.scrollTop = this.#lines.scrollHeight;
    if (mine || this.#known(user) !== UNKNOWN) return;
    const profile = await this.#session.request("GET", `/v1/users/${user}`).catch(() => null);
    this.#names.set(user, profile?.display_name ?? "Somebody");
    say(who, this.#known(user));
  }

  #known(user) {
    return this.#nameOf(user) ?? this.#names.get(user) ?? UNKNOWN;
  }
}
