/** The pages of a list, of which each but the first begins at a cursor. */

import { h } from "./dom.js";

export class Pager {
  #cursors = [null];
  #next = null;
  #back = h("button", { type: "button", onclick: () => this.#turn(() => this.#cursors.pop()) }, "Previous");
  #on = h("button", { type: "button", onclick: () => this.#turn(() => this.#cursors.push(this.#next)) }, "Next");
  #place = h("span", { class: "quiet" });

  /** `onTurn()`: another page is wanted, the one at `cursor`. */
  constructor(label, onTurn) {
    this.onTurn = onTurn;
    this.element = h("nav", { class: "pager", "aria-label": label }, this.#back, this.#place, this.#on);
  }

  /** Null for the first page. */
  get cursor() {
    return this.#cursors.at(-1);
  }

  toTheFirst() {
    this.#cursors = [null];
  }

  /** The page at the cursor is there, and `next` is the cursor of the one after it, or null. */
  show(next) {
    this.#next = next;
    this.#back.disabled = this.#cursors.length === 1;
    this.#on.disabled = !next;
    this.#place.textContent = `Page ${this.#cursors.length}`;
    this.element.hidden = this.#back.disabled && this.#on.disabled;
  }

  #turn(by) {
    by();
    this.onTurn();
  }
}
