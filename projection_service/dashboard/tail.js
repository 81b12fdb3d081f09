/** The last events, as they come, or those before the page's moment. */

import { get } from "./api.js";
import { Assets } from "./assets.js";
import { h, reconcile, table } from "./dom.js";
import { accountLink, amount, positionLink, story } from "./figures.js";
import { RECENT_EVENTS, eventsUpTo } from "./live.js";
import { Panel } from "./panel.js";
import { count, time } from "./words.js";

const DRAW_MILLISECONDS = 250;
const COLUMNS = [["Position", "number wide"], ["Time", "wide"], ["Event"], ["Account", "wide"], ["Amount", "number"]];

export class Tail {
  /** What there was when the list was stopped; null while it moves. */
  #stopped = null;
  #missed = 0;
  #table = table("Events, the newest first", COLUMNS);
  #list = h(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": "The last events" },
    this.#table.element,
  );
  #only = h("input", { type: "checkbox", id: "only-rejections", onchange: () => this.#panel.renew() });
  #pause = h("button", { type: "button", "aria-pressed": "false", onclick: () => this.#toggle() }, "Pause");
  #panel = new Panel("Events", {
    every: DRAW_MILLISECONDS,
    kind: "tail",
    aside: h("div", { class: "controls" }, h("label", {}, this.#only, "Rejections only"), this.#pause),
    load: (signal) => this.#load(signal),
    draw: (events, body) => this.#draw(events, body),
  });
  element = this.#panel.element;

  constructor(ledger) {
    this.ledger = ledger;
    this.assets = new Assets(
      async (accountId) => (await get(`account/${encodeURIComponent(accountId)}`)).data,
      () => this.#panel.refresh(),
    );
  }

  close() {
    this.#panel.close();
  }

  show() {
    this.#pause.hidden = this.ledger.at !== null;
    this.#panel.renew();
  }

  refresh() {
    this.#panel.refresh();
  }

  /** Events have just come. */
  add(batch) {
    this.#missed += batch.length;
    if (this.#stopped) this.#pause.textContent = `Go on (${count(this.#missed)} new)`;
    else if (this.ledger.at === null) this.#panel.refresh();
  }

  #toggle() {
    const { recent, rejections } = this.ledger.live;
    this.#stopped = this.#stopped ? null : { recent, rejections };
    this.#missed = 0;
    this.#pause.setAttribute("aria-pressed", String(this.#stopped !== null));
    this.#pause.textContent = this.#stopped ? "Go on" : "Pause";
    this.#panel.renew();
  }

  async #load(signal) {
    const { at, live } = this.ledger;
    if (at === null && !live.recent.length && live.refusal) throw live.refusal;
    const { recent, rejections } = this.#stopped ?? live;
    if (at === null) return this.#only.checked ? rejections : recent;
    const events = await eventsUpTo(at, BigInt(RECENT_EVENTS), signal);
    return this.#only.checked ? events.filter((told) => told.isRejection) : events;
  }

  #draw(events, body) {
    if (!events.length) {
      const { live, now, at } = this.ledger;
      const isOnItsWay = at === null && !live.recent.length && (live.last === null || now.position > 0n);
      if (isOnItsWay) return body.replaceChildren(h("p", { class: "quiet" }, "Loading…"));
      const words = this.#only.checked
        ? "No command was rejected among the last events."
        : "No event yet: the first command’s comes here.";
      return body.replaceChildren(h("p", { class: "quiet" }, words));
    }
    if (this.#list.parentElement !== body) body.replaceChildren(this.#list);
    this.assets.want(events.filter((told) => amountOf(told.event) !== undefined).map((told) => told.event.subject));
    reconcile(this.#table.body, this.#rows(events), {
      key: ({ told, gap }) => (gap ? `gap-${told.position}` : told.position),
      signature: ({ told, gap }) => (gap ? String(gap) : (this.assets.of(told.event.subject) ?? "")) + this.ledger.at,
      make: ({ told, gap }) => (gap ? skipped(gap) : this.#row(told.position, told.event)),
    });
  }

  /** The newest first, and between them how many were not shown. */
  #rows(events) {
    const rows = [];
    let after = null;
    for (const told of [...events].reverse()) {
      const gap = after === null || this.#only.checked ? 0n : after - told.position - 1n;
      if (gap > 0n) rows.push({ told, gap });
      rows.push({ told });
      after = told.position;
    }
    return rows;
  }

  #row(position, event) {
    const asset = this.assets.of(event.subject);
    const value = amountOf(event);
    const at = () => positionLink(this.ledger, position, count(position));
    return h(
      "tr",
      {},
      h("td", { class: "number wide" }, at()),
      h("td", { class: "wide" }, time(event.time, "clock")),
      h(
        "td",
        {},
        story(event.type, event.data),
        h("div", { class: "narrow" }, this.#accounts(event)),
        h("div", { class: "narrow detail" }, time(event.time, "clock"), " · ", at()),
      ),
      h("td", { class: "wide" }, this.#accounts(event)),
      h("td", { class: "number" }, value !== undefined && this.#amount(value, asset, position)),
    );
  }

  #accounts(event) {
    const other = event.counterpart ?? event.data.to;
    const subject = accountLink(this.ledger, event.subject);
    return other ? [subject, " → ", accountLink(this.ledger, other)] : [subject];
  }

  #amount(value, asset, position) {
    const href = this.ledger.link(["event", String(position)]);
    if (asset) return amount(value, asset, { href, withCode: true });
    // Without its places it would be read as another amount.
    return h("a", { class: "amount quiet", href, "aria-label": "The amount is being looked up" }, "…");
  }
}

const amountOf = ({ data }) => data.amount ?? data.limit;
const skipped = (gap) =>
  h("tr", { class: "gap" }, h("td", { colspan: COLUMNS.length }, `${count(gap)} events are not shown here`));
