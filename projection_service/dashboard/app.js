/** Where the parts of the page meet. */

import * as api from "./api.js";
import { h } from "./dom.js";
import { Live } from "./live.js";
import { Now } from "./now.js";
import * as route from "./route.js";
import { TimeControl } from "./time_control.js";
import { account } from "./views/account.js";
import { accounts } from "./views/accounts.js";
import { event } from "./views/event.js";
import { overview } from "./views/overview.js";
import { why } from "./views/why.js";

const VIEWS = { "": overview, accounts, account, event, why };
const PAGES = [
  ["Overview", []],
  ["Accounts", ["accounts"]],
];
/** Of those that have happened, so many are in the live list when the page is opened. */
const EVENTS_BEFORE = 50n;

/** What every view is given. `at`: the position as of which everything is, or null for now. */
const ledger = {
  at: null,
  route: route.read(""),
  live: new Live({
    onEvents: (batch) => {
      now.reached(batch.at(-1).position);
      view?.events?.(batch);
    },
    onState: (state) => {
      now.stream(state);
      view?.refresh?.();
    },
  }),

  /** Ask the service for `path` as of the page's moment; now, it knows at least what the page has heard of. */
  async get(path, parameters, signal) {
    const { at } = ledger;
    const moment = at === null ? { min_position: ledger.live.last } : { at_position: at };
    const answer = await api.get(path, { ...parameters, ...moment }, signal);
    // What knows of no moment tells how it is now: that must not be shown as of then.
    if (at !== null && answer.position !== at) throw new api.NotOfThen();
    if (at === null && answer.position !== null) ledger.live.heard(answer.position);
    return answer.data;
  },

  /** Another place, at the same moment. */
  link: (path, parameters = {}) => route.link({ path, parameters, at: ledger.at }),

  linkAt: (path, at) => route.link({ path, at }),

  /** This place with other parameters: who goes back from there leaves it. */
  narrow(parameters) {
    const { path } = ledger.route;
    location.replace(route.link({ path, parameters: { ...ledger.route.parameters, ...parameters }, at: ledger.at }));
  },

  /** This place at another moment; null is now. While one looks for a moment, each is not one to come back to. */
  travel(at, { replace = false } = {}) {
    const there = route.link({ ...ledger.route, at });
    if (replace) location.replace(there);
    else location.hash = there;
  },
};

const main = document.getElementById("main");
const now = new Now(document.getElementById("now"), ledger);
ledger.now = now;
const time = new TimeControl(document.getElementById("time"), ledger, () => now.position);
now.listen(() => {
  time.grow();
  // Something has happened of which the stream, should there be one, has not told yet.
  if (now.position > (ledger.live.last ?? now.position)) view?.refresh?.();
});
let view = null;
let shown = null;

function show() {
  const to = route.read(location.hash);
  const [name = "", ...rest] = to.path;
  const place = JSON.stringify(to.path);
  ledger.route = to;
  ledger.at = to.at;
  time.show();
  now.show();
  showPages(name);
  if (place !== shown) {
    view?.close?.();
    view = Object.hasOwn(VIEWS, name) ? VIEWS[name](ledger, ...rest) : nowhere();
    main.replaceChildren(...view.elements);
    document.title = `${view.title} · Counting House`;
    // Who reads with a screen reader or the keyboard is where the new page begins.
    if (shown !== null) main.focus({ preventScroll: true });
    if (shown !== null) scrollTo(0, 0);
    shown = place;
  }
  view.show?.();
}

function showPages(current) {
  const links = PAGES.map(([title, path]) =>
    h("a", { href: ledger.link(path), "aria-current": (path[0] ?? "") === current && "page" }, title),
  );
  document.getElementById("pages").replaceChildren(...links);
}

const nowhere = () => ({
  title: "Not found",
  elements: [h("h1", {}, "There is no such page"), h("p", {}, h("a", { href: ledger.link([]) }, "To the overview"))],
});

document.getElementById("skip").addEventListener("click", () => main.focus());
addEventListener("hashchange", show);
show();

/** The stream begins a little before what the views have now. */
async function begin() {
  try {
    const { position } = await api.get("reserves", { limit: 1 });
    now.reached(position);
    ledger.live.start(position > EVENTS_BEFORE ? position - EVENTS_BEFORE : 0n);
  } catch {
    now.stream("lost");
    setTimeout(begin, 1000);
  }
}
begin();
