/** In the page's head: how the page is connected, and what is wrong in the house when something is. */

import * as api from "./api.js";
import { h } from "./dom.js";
import { count } from "./words.js";

const EVERY_MILLISECONDS = 2_000;

export class Now {
  /** Of the views, as far as is known. */
  position = 0n;
  /** What `/pipeline` says, or the error that came in its place; null before the first answer. */
  pipeline = null;
  #stream = "waiting";
  #listeners = new Set();
  #state = h("span", { class: "state", role: "status" });
  #at = h("a", { class: "position", title: "The last event in the views" });

  constructor(element, ledger) {
    this.ledger = ledger;
    element.append(this.#state, this.#at);
    this.#follow();
  }

  /** `listener()` is called when there is something new; the answer ends that. */
  listen(listener) {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  stream(state) {
    this.#stream = state;
    this.show();
  }

  /** The views have got to `position`. */
  reached(position) {
    if (position <= this.position) return;
    this.position = position;
    this.show();
  }

  show() {
    const [kind, words] = this.#said();
    if (this.#state.textContent !== words) {
      // What is wrong stands in the overview.
      const said = kind === "warn" ? h("a", { href: this.ledger.link([]) }, words) : words;
      this.#state.replaceChildren(h("span", { class: `dot ${kind}` }), said);
    }
    this.#at.hidden = !this.position;
    this.#at.textContent = count(this.position);
    this.#at.href = this.ledger.link(["event", String(this.position)]);
  }

  #said() {
    if (this.#stream === "lost" || this.pipeline instanceof api.Unreachable) return ["bad", "Disconnected"];
    if (this.ledger.at !== null) return ["past", "In the past"];
    if (this.pipeline?.problem) return ["warn", "Trouble"];
    if (this.#stream === "refused") return ["warn", "No live events"];
    return this.#stream === "waiting" ? ["idle", "Connecting"] : ["good", "Live"];
  }

  async #follow() {
    if (!document.hidden) {
      try {
        const { data } = await api.get("pipeline");
        this.pipeline = data;
        this.reached(data.applied ?? 0n);
      } catch (error) {
        this.pipeline = error;
      }
      this.show();
      for (const listener of this.#listeners) listener();
    }
    setTimeout(() => this.#follow(), EVERY_MILLISECONDS);
  }
}
