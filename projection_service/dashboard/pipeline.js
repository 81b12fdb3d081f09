/** The way of an event from the log into these views, and what is wrong on it in words. */

import { h, released } from "./dom.js";
import { positionLink } from "./figures.js";
import { count, duration } from "./words.js";

export class Pipeline {
  #body = h("div", { class: "body" }, h("p", { class: "quiet" }, "Loading…"));
  element = h("section", { class: "panel pipeline", "aria-label": "Pipeline" }, this.#body);

  constructor(ledger) {
    this.ledger = ledger;
    this.close = ledger.now.listen(() => this.show());
  }

  async show() {
    await released();
    const told = this.ledger.now.pipeline;
    if (this.ledger.at !== null) {
      this.#body.replaceChildren(
        h("p", { class: "quiet" }, "The pipeline is of now: it is shown when the page is live."),
      );
    } else if (told instanceof Error) {
      this.#body.replaceChildren(verdict("bad", told.message));
    } else if (told) {
      this.#body.replaceChildren(this.#steps(told), verdict(...judge(told)));
    }
  }

  #steps(told) {
    const position = (value) =>
      value === null ? "—" : value > 0n ? positionLink(this.ledger, value, count(value)) : "0";
    const hasBroker = told.broker !== null;
    const steps = [
      ["In the log", position(told.head), "log head"],
      ["Published", position(told.published), hasBroker ? "to RabbitMQ" : "no broker: by the feed"],
      hasBroker && ["In the queue", told.queue_messages === null ? "—" : count(told.queue_messages), "messages"],
      ["In these views", position(told.applied), "applied"],
      ["Behind", told.lag_events === null ? "—" : count(told.lag_events), lag(told)],
    ];
    return h(
      "dl",
      { class: "steps" },
      steps
        .filter(Boolean)
        .map(([name, value, note]) =>
          h(
            "div",
            {},
            h("dt", {}, name),
            h("dd", {}, h("span", { class: "value" }, value), h("span", { class: "unit" }, note)),
          ),
        ),
    );
  }
}

const lag = ({ lag_seconds: seconds }) => (seconds === null ? "events" : `events, ${duration(Number(seconds))}`);

function judge(told) {
  if (told.problem) return ["warn", told.problem];
  if (told.lag_events === null) return ["idle", "Nobody can tell at the moment how far the log has got."];
  return told.lag_events > 0n
    ? ["good", "The views are catching up."]
    : ["good", "Every event of the log is in these views."];
}

const verdict = (kind, words) => h("p", { class: `verdict ${kind}` }, h("span", { class: `dot ${kind}` }), words);
