/** A part of the page that shows one answer: while it is asked for, when there is none, and when it goes wrong. */

import { h, keepingFocus, released } from "./dom.js";

const REFRESH_MILLISECONDS = 400;
const RETRY_MILLISECONDS = 2000;

export class Panel {
  #load;
  #draw;
  #missing;
  #every;
  #asking = null;
  #asked = -Infinity;
  #timer = null;
  #wanted = false;
  #drawn = false;
  #body = h("div", { class: "body" }, h("p", { class: "quiet" }, "Loading…"));
  #note = h("div", { class: "note", hidden: true });

  /**
   * `load(signal)` asks; `draw(answer, body)` shows it. `every`: milliseconds from one question to the next at least,
   * however often `refresh` is called. `aside` stands beside the title. `missing(problem, body)` shows that there is no
   * such thing; without it, that is told as any other failure is.
   */
  constructor(title, { load, draw, missing = null, every = REFRESH_MILLISECONDS, aside = null, kind = "" }) {
    this.#load = load;
    this.#draw = draw;
    this.#missing = missing;
    this.#every = every;
    this.element = h(
      "section",
      { class: `panel ${kind}`, "aria-busy": "true" },
      title && h("div", { class: "top" }, h("h2", {}, title), aside),
      this.#note,
      this.#body,
    );
  }

  /** Ask again, since something has changed. */
  refresh() {
    if (this.#asking) this.#wanted = true;
    else this.#timer ??= setTimeout(() => this.#ask(), Math.max(0, this.#asked + this.#every - performance.now()));
  }

  /** Ask something else: what is still on its way is of no use any more. */
  renew() {
    this.close();
    this.#ask();
  }

  close() {
    clearTimeout(this.#timer);
    this.#asking?.abort();
    this.#timer = this.#asking = null;
  }

  async #ask() {
    const asking = (this.#asking = new AbortController());
    this.#timer = null;
    this.#wanted = false;
    this.#asked = performance.now();
    this.element.setAttribute("aria-busy", "true");
    let failure = null;
    try {
      const answer = await this.#load(asking.signal);
      await released();
      if (asking.signal.aborted) return;
      if (!this.#drawn) this.#body.replaceChildren();
      this.#drawn = true;
      keepingFocus(this.#body, () => this.#draw(answer, this.#body));
    } catch (error) {
      if (asking.signal.aborted) return;
      failure = error;
    }
    this.#asking = null;
    this.element.setAttribute("aria-busy", "false");
    this.#tell(failure);
    if (this.#wanted) this.refresh();
  }

  #tell(failure) {
    const isMissing = failure?.status === 404 && this.#missing;
    this.#note.hidden = !failure || isMissing;
    if (!failure) return;
    const isAnswer = failure.status >= 400 && failure.status < 500;
    // What was there before would be a wrong answer then. When there is none, it is old, and said to be.
    if (isAnswer || !this.#drawn) {
      this.#body.replaceChildren();
      this.#drawn = false;
    }
    if (isMissing) return this.#missing(failure, this.#body);
    const retry = h("button", { type: "button", onclick: () => this.renew() }, "Try again");
    this.#note.replaceChildren(h("p", {}, failure.message), ...(isAnswer ? [] : [retry]));
    if (!isAnswer) this.#timer = setTimeout(() => this.#ask(), RETRY_MILLISECONDS);
  }
}
