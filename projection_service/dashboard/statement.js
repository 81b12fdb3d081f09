/** An account's statement, the newest entry first, page by page: however long it is, so many entries are on the page. */

import { address } from "./api.js";
import { h, said, table } from "./dom.js";
import { accountLink, amount, positionLink, story } from "./figures.js";
import { Panel } from "./panel.js";
import { count, time } from "./words.js";

const PAGE_ENTRIES = 100;
const ENTRIES_MAX = 1_000;
/** The service looks at so many entries for a page: one may be empty though there are more. */
const EMPTY_PAGES_MAX = 20;
const REFRESH_MILLISECONDS = 500;
const DAY_MILLISECONDS = 86_400_000;

export class Statement {
  #entries = [];
  #next = null;
  #isCut = false;
  #older = null;
  #told = null;
  #table = table("Statement, the newest entry first", [
    ["Position", "number wide"],
    ["Time", "wide"],
    ["Event"],
    ["Change", "number"],
    ["Balance", "number wide"],
    ["Available", "number wider"],
  ]);
  #from = h("input", { type: "date", id: "from", onchange: () => this.#choose() });
  #to = h("input", { type: "date", id: "to", onchange: () => this.#choose() });
  #rejections = h("input", { type: "checkbox", id: "rejections", onchange: () => this.#choose() });
  #download = h("a", { download: "" }, "Download CSV");
  #sums = h("p", { class: "sums" });
  #newest = h("button", { type: "button", onclick: () => this.show() }, "Back to the newest entries");
  #more = h("button", { type: "button", onclick: () => this.#goOn() }, "Older entries");
  #end = h("div", { class: "end" }, this.#more);
  #panel;
  #observer = new IntersectionObserver(([seen]) => seen.isIntersecting && !this.#more.hidden && this.#goOn(), {
    rootMargin: "300px",
  });

  constructor(ledger, accountId) {
    this.ledger = ledger;
    this.accountId = accountId;
    this.path = `account/${encodeURIComponent(accountId)}/statement`;
    this.#panel = new Panel("Statement", {
      kind: "statement",
      every: REFRESH_MILLISECONDS,
      aside: h(
        "div",
        { class: "controls" },
        h("label", {}, "From ", this.#from),
        h("label", {}, "to ", this.#to),
        h("label", {}, this.#rejections, "Rejections"),
        this.#download,
      ),
      load: (signal) => this.#page(null, signal),
      draw: (page, body) => this.#draw(page, body),
    });
    this.element = this.#panel.element;
    this.#observer.observe(this.#end);
  }

  show() {
    const { from = "", to = "", rejections } = this.ledger.route.parameters;
    this.#from.value = from;
    this.#to.value = to;
    this.#rejections.checked = Boolean(rejections);
    this.#dropOlder();
    this.#entries = [];
    this.#next = null;
    this.#isCut = false;
    const moment = this.ledger.at === null ? {} : { at_position: this.ledger.at };
    this.#download.href = address(this.path, { ...this.#asked(), ...moment, format: "csv" });
    this.#panel.renew();
  }

  /** There may be new entries. */
  refresh() {
    if (!this.#isCut) this.#panel.refresh();
  }

  close() {
    this.#panel.close();
    this.#dropOlder();
    this.#observer.disconnect();
  }

  /** Older entries that are on their way are of no use any more. */
  #dropOlder() {
    this.#older?.abort();
    this.#older = null;
  }

  #asked() {
    const { from, to, rejections } = this.ledger.route.parameters;
    return { from, to, rejections: rejections && "true" };
  }

  #choose() {
    this.ledger.narrow({ from: this.#from.value, to: this.#to.value, rejections: this.#rejections.checked && "true" });
  }

  /** What the balance came from before the first day. */
  #before() {
    const { from } = this.#asked();
    return from ? this.#why({ to: new Date(Date.parse(from) - DAY_MILLISECONDS).toISOString().slice(0, 10) }) : null;
  }

  #why = (period) => this.ledger.link(["why", "account", this.accountId, "balance"], period);

  async #page(cursor, signal) {
    let page = { entries: [], next: cursor };
    for (let pages = 0; !page.entries.length && (pages === 0 || page.next) && pages < EMPTY_PAGES_MAX; pages++) {
      page = await this.ledger.get(this.path, { ...this.#asked(), limit: PAGE_ENTRIES, cursor: page.next }, signal);
    }
    return page;
  }

  /** The newest page: what of it is new stands above what is there. */
  #draw(page, body) {
    const top = this.#entries[0]?.position;
    const fresh = page.entries.filter((entry) => top === undefined || entry.position > top);
    this.#told = page;
    if (fresh.length === page.entries.length) {
      // Nothing that is there follows on it, nor what is on its way.
      this.#dropOlder();
      this.#entries = page.entries;
      this.#next = page.next;
      this.#table.body.replaceChildren(...page.entries.map((entry) => this.#row(entry)));
    } else {
      this.#entries = [...fresh, ...this.#entries];
      this.#table.body.prepend(...fresh.map((entry) => this.#row(entry)));
    }
    this.#sums.replaceChildren(
      "Opening balance ",
      amount(page.opening_balance, page.asset, { withCode: true, href: this.#before() }),
      ", closing balance ",
      amount(page.closing_balance, page.asset, { withCode: true, href: this.#why({ to: this.#asked().to }) }),
    );
    if (!this.#entries.length && !this.#next) {
      return body.replaceChildren(this.#sums, h("p", { class: "quiet" }, "There is no entry in this time."));
    }
    if (this.#table.element.parentElement !== body)
      body.replaceChildren(this.#sums, this.#newest, this.#table.element, this.#end);
    this.#showEnds();
  }

  async #goOn() {
    if (this.#older || !this.#next) return;
    const older = (this.#older = new AbortController());
    this.#more.disabled = true;
    try {
      const page = await this.#page(this.#next, older.signal);
      if (older.signal.aborted) return;
      this.#next = page.next;
      this.#entries.push(...page.entries);
      this.#table.body.append(...page.entries.map((entry) => this.#row(entry)));
      const over = this.#entries.length - ENTRIES_MAX;
      if (over > 0) {
        this.#entries.splice(0, over);
        [...this.#table.body.children].slice(0, over).forEach((row) => row.remove());
        this.#isCut = true;
      }
      this.#more.textContent = "Older entries";
    } catch (error) {
      if (older.signal.aborted) return;
      this.#more.textContent = `Older entries: try again. ${error.message}`;
    }
    this.#older = null;
    this.#showEnds();
  }

  #showEnds() {
    this.#newest.hidden = !this.#isCut;
    this.#more.hidden = !this.#next;
    this.#more.disabled = false;
  }

  #row(entry) {
    const { asset } = this.#told;
    const href = this.ledger.link(["event", String(entry.position)]);
    const counterpart =
      entry.counterpart &&
      h("span", { class: "detail" }, entry.change < 0n ? "to " : "from ", accountLink(this.ledger, entry.counterpart));
    return h(
      "tr",
      {},
      h("td", { class: "number wide" }, positionLink(this.ledger, entry.position, count(entry.position))),
      h("td", { class: "wide" }, time(entry.time)),
      h(
        "td",
        {},
        story(entry.type, entry, counterpart),
        h(
          "span",
          { class: "narrow detail" },
          time(entry.time),
          " · ",
          positionLink(this.ledger, entry.position, count(entry.position)),
        ),
        Object.entries(entry.metadata ?? {}).map(([name, value]) =>
          h("span", { class: "pair-of-metadata" }, said(name), ": ", said(value)),
        ),
      ),
      h(
        "td",
        { class: "number" },
        entry.change !== 0n && amount(entry.change, asset, { href, signed: true }),
        entry.change_of_held !== 0n &&
          h("span", { class: "held" }, "held ", amount(entry.change_of_held, asset, { href, signed: true })),
        h("span", { class: "narrow" }, "balance ", amount(entry.balance, asset, { href })),
      ),
      h("td", { class: "number wide" }, amount(entry.balance, asset, { href, kind: "strong" })),
      h("td", { class: "number wider" }, amount(entry.available, asset, { href })),
    );
  }
}
