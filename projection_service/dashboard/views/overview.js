/** The whole house: the way of the events, the reserves now and over time, and what happens. */

import { Chart } from "../chart.js";
import { h, reconcile, said, table } from "../dom.js";
import { amount } from "../figures.js";
import { Pager } from "../pager.js";
import { Panel } from "../panel.js";
import { Pipeline } from "../pipeline.js";
import { Tail } from "../tail.js";
import { code, time } from "../words.js";

const PAGE_ASSETS = 500;
const CHART_MILLISECONDS = 2_000;

export function overview(ledger) {
  const pipeline = new Pipeline(ledger);
  const tail = new Tail(ledger);
  const list = table("Reserves", [["Asset"], ["Reserve", "number"], ["Last change", "wide"]]);
  const chart = new Chart(ledger, [{ name: "Reserve", of: (point) => point.amount, colour: "--accent", fill: true }]);
  const pager = new Pager("Pages of reserves", () => {
    list.element.parentElement.scrollTop = 0;
    reserves.renew();
  });
  const title = h("span", {}, "Over time");
  const holders = h("a", { hidden: true });
  let assets = [];
  let charted = null;

  const reserves = new Panel("Reserves", {
    // One more than is shown: then there is a next page.
    load: (signal) => ledger.get("reserves", { after: pager.cursor, limit: PAGE_ASSETS + 1 }, signal),
    draw: (answer, body) => {
      assets = answer.slice(0, PAGE_ASSETS);
      pager.show(answer.length > PAGE_ASSETS ? assets.at(-1).asset : null);
      if (!body.firstChild)
        body.append(
          h(
            "div",
            { class: "scroll", tabindex: 0, role: "region", "aria-label": "Reserves of all assets" },
            list.element,
          ),
          pager.element,
        );
      reconcile(list.body, assets, {
        key: (reserve) => reserve.asset,
        signature: (reserve) => [reserve.amount, reserve.last_updated, reserve.asset === asset(), ledger.at].join(),
        make: row,
      });
      if (charted !== asset()) over.renew();
    },
  });
  const over = new Panel(title, {
    every: CHART_MILLISECONDS,
    aside: holders,
    load: async (signal) => {
      charted = asset();
      return charted ? ledger.get("reserve/history", { asset: charted }, signal) : { points: [] };
    },
    draw: ({ points }, body) => {
      title.textContent = charted ? `${code(charted)} over time` : "Over time";
      holders.hidden = !charted;
      holders.textContent = charted && `Accounts in ${charted}`;
      holders.href = ledger.link(["accounts"], { asset: charted });
      if (!points.length) return body.replaceChildren(h("p", { class: "quiet" }, "Nothing has been paid in yet."));
      if (chart.element.parentElement !== body) body.replaceChildren(chart.element);
      chart.draw(points, charted);
    },
  });

  /** The one that was asked for, or the first that has something. */
  const asset = () =>
    ledger.route.parameters.asset ?? (assets.find((reserve) => reserve.amount !== 0n) ?? assets[0])?.asset;

  function row(reserve) {
    const isChosen = reserve.asset === asset();
    return h(
      "tr",
      { class: isChosen && "chosen" },
      h(
        "td",
        {},
        h(
          "a",
          { href: ledger.link([], { asset: reserve.asset }), "aria-current": isChosen && "true" },
          said(reserve.asset, ""),
        ),
      ),
      h(
        "td",
        { class: "number" },
        amount(reserve.amount, reserve.asset, { href: ledger.link(["why", "reserve", reserve.asset]) }),
      ),
      h("td", { class: "wide" }, reserve.last_updated ? time(reserve.last_updated) : "never"),
    );
  }

  const refresh = () => [reserves, over].forEach((part) => part.refresh());
  return {
    title: "Overview",
    elements: [
      h("h1", { class: "unseen" }, "Overview"),
      pipeline.element,
      h("div", { class: "pair" }, reserves.element, over.element),
      tail.element,
    ],
    show: () => (pipeline.show(), reserves.renew(), over.renew(), tail.show()),
    events(batch) {
      tail.add(batch);
      if (ledger.at === null) refresh();
    },
    refresh: () => (refresh(), tail.refresh()),
    close: () => [pipeline, tail, reserves, over, chart].forEach((part) => part.close()),
  };
}
