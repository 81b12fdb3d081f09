/** One account: its figures, its balance over time, its open holds and its statement. */

import { PATTERN, noAccountId } from "../account_id.js";
import { Chart } from "../chart.js";
import { h, reconcile, said, table } from "../dom.js";
import { amount, status } from "../figures.js";
import { Panel } from "../panel.js";
import { Statement } from "../statement.js";
import { count, sentence, time } from "../words.js";

const CHART_MILLISECONDS = 2_000;
const HOLDS_MAX = 100;

export function account(ledger, accountId = "") {
  if (!PATTERN.test(accountId)) return noAccountId(ledger);
  const path = `account/${encodeURIComponent(accountId)}`;
  const why = (...of) => ledger.link(["why", "account", accountId, ...of]);
  const statement = new Statement(ledger, accountId);
  const chart = new Chart(ledger, [
    { name: "Balance", of: (point) => point.balance, colour: "--accent", fill: true },
    { name: "Available", of: (point) => point.available, colour: "--second", dash: true },
  ]);
  const parts = h("div", { class: "parts" });

  const figures = new Panel(null, {
    kind: "figures",
    load: (signal) => ledger.get(path, {}, signal),
    draw: (told, body) => {
      parts.hidden = false;
      document.title = `${told.name || told.id} · Counting House`;
      const figure = (name, value, of) =>
        h(
          "div",
          {},
          h("dt", {}, name),
          h("dd", {}, amount(value, told.asset, { href: why(of), withCode: of === "balance" })),
        );
      body.replaceChildren(
        h("div", { class: "heading" }, h("h1", {}, said(told.name || "(no name)")), status(told.status)),
        h(
          "p",
          { class: "quiet" },
          h("span", { class: "id" }, told.id),
          ` · ${told.asset} · version ${count(told.version)} · last change `,
          time(told.last_updated),
        ),
        h(
          "dl",
          { class: "amounts" },
          figure("Balance", told.balance, "balance"),
          figure("Held", told.held, "held"),
          figure("Available", told.available, "available"),
          figure("Overdraft limit", told.overdraft_limit, "limit"),
        ),
      );
    },
    missing: ({ message }, body) => {
      parts.hidden = true;
      body.replaceChildren(
        h("h1", {}, "No such account"),
        h("p", {}, sentence(message)),
        ledger.at === null
          ? h(
              "p",
              { class: "quiet" },
              "When it is opened, it comes here. ",
              h("a", { href: ledger.link(["accounts"]) }, "All accounts"),
            )
          : h("p", {}, h("a", { href: ledger.linkAt(["account", accountId], null) }, "See it as it is now")),
      );
    },
  });
  const curve = new Panel("Balance over time", {
    every: CHART_MILLISECONDS,
    load: (signal) => ledger.get(`${path}/balances`, period(ledger.route), signal),
    draw: (told, body) => {
      if (!told.points.length)
        return body.replaceChildren(h("p", { class: "quiet" }, "Nothing has happened in this time."));
      if (chart.element.parentElement !== body) body.replaceChildren(chart.element);
      chart.draw(told.points, told.asset);
    },
  });
  const list = table("Open holds", [["Hold"], ["Expires", "wide"], ["Amount", "number"]]);
  const listed = h(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": "All open holds" },
    list.element,
  );
  const more = h("p", { class: "quiet" }, "There are more than these.");
  const holds = new Panel("Open holds", {
    load: async (signal) => {
      const [{ asset }, holds] = await Promise.all([
        ledger.get(path, {}, signal),
        ledger.get(`${path}/holds`, { limit: HOLDS_MAX }, signal),
      ]);
      return { asset, holds };
    },
    draw: (told, body) => {
      more.hidden = told.holds.length < HOLDS_MAX;
      if (!told.holds.length) return body.replaceChildren(h("p", { class: "quiet" }, "Nothing is held."));
      if (listed.parentElement !== body) body.replaceChildren(listed, more);
      reconcile(list.body, told.holds, {
        key: (hold) => hold.hold_id,
        signature: (hold) => `${hold.placed_at} ${hold.amount} ${ledger.at}`,
        make: (hold) =>
          h(
            "tr",
            {},
            h(
              "td",
              {},
              h(
                "div",
                { class: "story" },
                said(hold.hold_id, "id"),
                hold.description && said(hold.description, "detail said"),
              ),
            ),
            h("td", { class: "wide" }, hold.expires_at ? time(hold.expires_at) : "never"),
            h("td", { class: "number" }, amount(hold.amount, told.asset, { href: why("hold", hold.hold_id) })),
          ),
      });
    },
  });

  parts.append(h("div", { class: "pair wide-left" }, curve.element, holds.element), statement.element);

  const panels = [figures, curve, holds];
  const refresh = () => (panels.forEach((panel) => panel.refresh()), statement.refresh());
  return {
    title: accountId,
    elements: [figures.element, parts],
    show: () => (panels.forEach((panel) => panel.renew()), statement.show()),
    events: (batch) => ledger.at === null && batch.some((told) => told.names(accountId)) && refresh(),
    refresh,
    close: () => [...panels, statement, chart].forEach((part) => part.close()),
  };
}

export const period = ({ parameters: { from, to } }) => ({ from, to });
