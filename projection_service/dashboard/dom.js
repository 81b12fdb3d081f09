/** Elements, and rows that stay the same elements while what they show changes. */

/**
 * An element with its properties and children. Text is always a text node: names and descriptions are anybody's.
 * `on…` properties are listeners; null, false and undefined are left out.
 */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Text of somebody else's: it keeps its own direction, and breaks anywhere. */
export const said = (text, kind = "said") => h("bdi", { class: kind }, text);

/** Show `items` as children of `parent`, in their order. What has the same key and signature stays as it is. */
export function reconcile(parent, items, { key, signature, make }) {
  const before = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let at = parent.firstElementChild;
  for (const item of items) {
    const name = String(key(item));
    const signed = signature(item);
    let child = before.get(name);
    before.delete(name);
    if (child?.dataset.signature !== signed) {
      const made = make(item, child !== undefined);
      made.dataset.key = name;
      made.dataset.signature = signed;
      if (child) {
        if (at === child) at = made;
        child.replaceWith(made);
      }
      child = made;
    }
    if (child === at) at = at.nextElementSibling;
    else parent.insertBefore(child, at);
  }
  for (const child of before.values()) child.remove();
}

/** Draw what is in `element` anew: the link to the same place has the focus then, should one have had it. */
export function keepingFocus(element, draw) {
  const href = element.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  const links = () => [...element.querySelectorAll("a[href]")].filter((link) => link.getAttribute("href") === href);
  const number = links().indexOf(document.activeElement);
  draw();
  // Where it is, and not in view again: who has the focus there may read somewhere else.
  if (number >= 0 && document.activeElement === document.body) links()[number]?.focus({ preventScroll: true });
}

const PRESS_MILLISECONDS_MAX = 2_000;
let press = Promise.resolve();
let release = () => {};

/** Wait while a link or a button is pressed: one that is replaced or moved before its release would not be clicked. */
export const released = () => press;

document.addEventListener("pointerdown", ({ target }) => {
  if (!target.closest("a, button")) return;
  press = new Promise((resolve) => (release = resolve));
  setTimeout(release, PRESS_MILLISECONDS_MAX);
});
for (const name of ["pointerup", "pointercancel"]) {
  // By a timer: the click itself comes right after.
  document.addEventListener(name, () => setTimeout(release));
}

/** A table with a caption that only screen readers have, and its body. `columns`: [heading, class]. */
export function table(caption, columns) {
  const body = h("tbody");
  const head = columns.map(([heading, kind]) => h("th", { scope: "col", class: kind }, heading));
  const element = h("table", {}, h("caption", { class: "unseen" }, caption), h("thead", {}, h("tr", {}, head)), body);
  return { element, body };
}
