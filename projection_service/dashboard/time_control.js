/** The page as of a moment: by a position, a time, or the slider over all of the log. */

import * as api from "./api.js";
import { h } from "./dom.js";
import { count, exactly, moment, time } from "./words.js";

const SLIDE_MILLISECONDS = 120;

export class TimeControl {
  #open = false;
  #moment = h("p", { class: "moment", "aria-live": "polite" });
  #failure = h("p", { class: "failure", role: "alert" });
  #slider = h("input", { type: "range", min: 0, step: 1, "aria-label": "Position", oninput: () => this.#slide() });
  #position = h("input", { type: "text", inputmode: "numeric", pattern: "[0-9]{1,19}", size: 12, id: "at-position" });
  /** Text: what the browsers have for times is to the minute or has to be filled in to the end, and cuts microseconds. */
  #time = h("input", {
    type: "text",
    id: "at-time",
    placeholder: "2026-10-05 14:30",
    size: 25,
    autocomplete: "off",
    spellcheck: "false",
  });
  /** The time of the event that the page is as of. Others may have the same. */
  #told = "";
  #sliding = null;
  #asked = 0;

  /** `head()` is the position that the views are at now. */
  constructor(element, ledger, head) {
    this.ledger = ledger;
    this.head = head;
    this.element = element;
    this.toggle = h(
      "button",
      { type: "button", "aria-controls": "time-panel", "aria-expanded": "false", onclick: () => this.#toggle() },
      "Go back in time",
    );
    this.live = h("button", { type: "button", class: "live", onclick: () => this.#toNow() }, "Back to live");
    document.getElementById("now").append(this.toggle, this.live);
    const step = (by, words) =>
      h(
        "button",
        { type: "button", title: words, "aria-label": words, onclick: () => this.#step(by) },
        by < 0 ? "‹" : "›",
      );
    const form = (name, label, input, go) =>
      h(
        "form",
        { onsubmit: (submitted) => (submitted.preventDefault(), go()) },
        h("label", { for: input.id }, label),
        input,
        h("button", { type: "submit", "aria-label": `Show ${name}` }, "Show"),
      );
    element.append(
      h(
        "section",
        { id: "time-panel", "aria-label": "Point in time", hidden: true },
        h(
          "div",
          { class: "strip" },
          this.#moment,
          h("div", { class: "slide" }, step(-1n, "The event before"), this.#slider, step(1n, "The event after")),
          form("this position", "Position", this.#position, () => this.#toPosition()),
          form("this moment", "Time, UTC", this.#time, () => this.#toTime()),
        ),
        this.#failure,
      ),
    );
  }

  /** What the page's place says. */
  show() {
    const { at } = this.ledger;
    this.element.firstElementChild.hidden = at === null && !this.#open;
    this.element.classList.toggle("past", at !== null);
    this.toggle.hidden = at !== null;
    this.live.hidden = at === null;
    this.toggle.setAttribute("aria-expanded", String(this.#open));
    this.#failure.textContent = "";
    const head = this.head() > (at ?? 0n) ? this.head() : (at ?? 0n);
    this.#slider.max = String(head);
    this.#slider.value = String(at ?? head);
    this.#position.value = String(at ?? head);
    this.#slider.setAttribute("aria-valuetext", `${count(at ?? head)} of ${count(head)}`);
    if (at === null) this.#moment.replaceChildren("Choose a moment: every figure is shown as of then.");
    else this.#tellMoment(at);
  }

  /** The head has moved on. */
  grow() {
    if (this.head() > BigInt(this.#slider.max)) this.#slider.max = String(this.head());
  }

  async #tellMoment(at) {
    const asked = ++this.#asked;
    const words = [h("strong", {}, "As of position ", count(at))];
    this.#moment.replaceChildren(...words);
    this.#time.value = this.#told = "";
    if (at === 0n) return this.#moment.append(", before the first event");
    try {
      const { data } = await api.get(`events/${at}`);
      if (asked !== this.#asked) return;
      this.#moment.replaceChildren(...words, ", ", time(data.event.time));
      if (!this.#time.value) this.#time.value = this.#told = exactly(data.event.time);
    } catch {
      // The panels say what is wrong with it.
    }
  }

  #toggle() {
    this.#open = !this.#open;
    this.show();
    if (this.#open) this.#slider.focus();
  }

  #toNow() {
    this.#open = false;
    this.ledger.travel(null);
    this.show();
    this.toggle.focus();
  }

  #step(by) {
    const from = this.ledger.at ?? this.head();
    if (from + by >= 0n) this.ledger.travel(from + by);
  }

  #slide() {
    clearTimeout(this.#sliding);
    const to = BigInt(this.#slider.value);
    this.#sliding = setTimeout(() => this.ledger.travel(to, { replace: this.ledger.at !== null }), SLIDE_MILLISECONDS);
  }

  #toPosition() {
    if (/^\d{1,19}$/.test(this.#position.value)) this.ledger.travel(BigInt(this.#position.value));
    else this.#failure.textContent = "A position is a whole number.";
  }

  async #toTime() {
    const written = this.#time.value.trim();
    if (!written || (this.ledger.at !== null && written === this.#told)) return;
    const asOf = moment(written);
    this.#failure.textContent = asOf ? "" : "A time is written to the minute at least, as in 2026-10-05 14:30.";
    if (!asOf) return;
    try {
      const { position } = await api.get("reserves", { as_of: asOf, limit: 1 });
      this.ledger.travel(position);
    } catch (error) {
      this.#failure.textContent = error.message;
    }
  }
}
