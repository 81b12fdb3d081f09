/** From a figure to the event that made it what it is: `#/why/account/alice/held` leads on to `#/event/…`. */

import { PATTERN, noAccountId } from "../account_id.js";
import { h } from "../dom.js";
import { Panel } from "../panel.js";

const PAGES_MAX = 50;

/** What the newest entry that a figure comes from has. */
const MADE_BY = {
  balance: (entry) => entry.change !== 0n,
  held: (entry) => entry.change_of_held !== 0n,
  available: (entry) => entry.change !== 0n || entry.change_of_held !== 0n || entry.type === "overdraft-limit-set",
  limit: (entry) => entry.type === "overdraft-limit-set",
  hold: (entry, holdId) => entry.type === "hold-placed" && entry.hold_id === holdId,
};
/** So the service need not be asked for all the others. */
const TYPES = {
  held: ["hold-placed", "hold-captured", "hold-released", "hold-expired"],
  limit: ["overdraft-limit-set"],
  hold: ["hold-placed"],
};
/** In place of a position: it is further back than anybody has looked. */
const FURTHER_BACK = "further back";

export function why(ledger, what, name = "", of = "balance", holdId = undefined) {
  if (what !== "reserve" && !PATTERN.test(name)) return noAccountId(ledger);
  const panel = new Panel(null, {
    load: (signal) => (what === "reserve" ? ofReserve(signal) : ofAccount(signal)),
    draw: (position, body) => {
      // In its place: who goes back from there comes to the figure.
      if (position === FURTHER_BACK)
        body.replaceChildren(
          h("h1", {}, "Further back than this page looks"),
          h("p", {}, "None of the newest events has made the figure what it is. The statement has all of them:"),
          h("p", {}, h("a", { href: ledger.link(["account", name]) }, name)),
        );
      else if (position) location.replace(ledger.link(["event", String(position)]));
      else
        body.replaceChildren(
          h("h1", {}, "Nothing has changed it"),
          h("p", {}, "The figure is as it was at the beginning: no event has made it another one."),
        );
    },
  });

  async function ofReserve(signal) {
    const { points } = await ledger.get("reserve/history", { asset: name, buckets: 1 }, signal);
    return points.at(-1)?.position;
  }

  async function ofAccount(signal) {
    const found = await Promise.all((TYPES[of] ?? [undefined]).map((type) => newest(type, signal)));
    // What is further back than all that was looked at is older than what was found there.
    const positions = found.filter((one) => one !== null && one !== FURTHER_BACK);
    if (positions.length) return positions.reduce((one, other) => (one > other ? one : other));
    return found.includes(FURTHER_BACK) ? FURTHER_BACK : null;
  }

  async function newest(type, signal) {
    const path = `account/${encodeURIComponent(name)}/statement`;
    let cursor = null;
    for (let pages = 0; pages < PAGES_MAX; pages++) {
      const page = await ledger.get(path, { type, to: ledger.route.parameters.to, limit: 100, cursor }, signal);
      const entry = page.entries.find((one) => MADE_BY[of]?.(one, holdId));
      if (entry) return entry.position;
      if (!(cursor = page.next)) return null;
    }
    return FURTHER_BACK;
  }

  return {
    title: "Explain",
    elements: [panel.element],
    show: () => panel.renew(),
    close: () => panel.close(),
  };
}
