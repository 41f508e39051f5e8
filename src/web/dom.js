// Makes DOM nodes. Text is always text, never markup.

/// An element, `h("p.quiet", { id: "x" }, "text", child)`: the name with classes, then properties
/// or none (`on…` are listeners, others attributes, which `false` and null leave out), then
/// children: nodes, text, or null for nothing.
export function h(name, ...rest) {
  const [tag, ...classes] = name.split(".");
  return fill(document.createElement(tag), classes, rest);
}

/// The same in SVG.
export function svg(name, ...rest) {
  const [tag, ...classes] = name.split(".");
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), classes, rest);
}

function fill(element, classes, [first, ...others]) {
  const bare = first?.constructor !== Object;
  for (const [name, value] of Object.entries(bare ? {} : first)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else set(element, name, value);
  }
  element.classList.add(...classes);
  const children = bare ? [first, ...others] : others;
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/// Sets an attribute, if it is not so already: screen readers are told of changes alone.
export function set(element, name, value) {
  const text = value === true && !name.startsWith("aria-") ? "" : String(value);
  if (value === false || value === null || value === undefined) element.removeAttribute(name);
  else if (element.getAttribute(name) !== text) element.setAttribute(name, text);
}

/// Sets an element's text, if it is not so already.
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/// Makes `list` show `items` (each with an `id`), and leaves alone those that have not changed, so
/// that focus and animations outlive an update.
export function reconcile(list, items, render) {
  const old = new Map([...list.children].map((child) => [child.dataset.id, child]));
  items.forEach((item, place) => {
    const shape = JSON.stringify(item);
    let child = old.get(item.id);
    old.delete(item.id);
    if (child?.shape !== shape) {
      const fresh = Object.assign(render(item), { shape });
      fresh.dataset.id = item.id;
      child?.replaceWith(fresh);
      child = fresh;
    }
    if (list.children[place] !== child) list.insertBefore(child, list.children[place] ?? null);
  });
  for (const child of old.values()) child.remove();
}

/// Shows a dialog that goes when it is closed.
export function openDialog(title, ...children) {
  const close = h("button", { type: "button", class: "close", "aria-label": "Close" }, "×");
  const dialog = h("dialog", { "aria-label": title }, h("h2", title), close, ...children);
  close.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}
