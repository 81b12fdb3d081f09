/** One event: what it says, the ledger's chain at it, and each account before and after it. */

import { get, stringify } from "../api.js";
import { h, said } from "../dom.js";
import { accountLink, amount, status } from "../figures.js";
import { Panel } from "../panel.js";
import { change, count, isRejection, sentence, time } from "../words.js";

const AMOUNTS = [
  ["balance", "Balance"],
  ["held", "Held"],
  ["available", "Available"],
  ["overdraft_limit", "Overdraft limit"],
];

export function event(ledger, written = "") {
  if (!/^[1-9]\d{0,18}$/.test(written)) return noPosition(ledger);
  const position = BigInt(written);
  const panel = new Panel(null, {
    kind: "event",
    // The event is the same at every moment: the page's does not matter to it.
    load: async (signal) => (await get(`events/${position}`, {}, signal)).data,
    draw(told, body) {
      isThere = true;
      body.replaceChildren(...drawn(told));
    },
    missing: ({ message }, body) =>
      body.replaceChildren(
        h("h1", {}, "No such event"),
        h("p", {}, sentence(message)),
        h("p", { class: "quiet" }, "When it has happened, it comes here."),
      ),
  });
  let isThere = false;
  // Once it is there it is what it always will be.
  const look = () => isThere || panel.refresh();

  function drawn({ event: one, chain, accounts }) {
    const asset = accounts.map(({ before, after }) => (after ?? before)?.asset).find(Boolean) ?? "USD/2";
    const {
      amount: moved,
      limit,
      description,
      reason,
      metadata,
      hold_id: holdId,
      released,
      expires_at: expires,
      name,
    } = one.data;
    const rejected = isRejection(one.type);
    const facts = [
      ["Time", time(one.time, "exact")],
      ["Account", accountLink(ledger, one.subject), `version ${count(one.accountversion)}`],
      (one.counterpart ?? one.data.to) && [
        "Counterpart",
        accountLink(ledger, one.counterpart ?? one.data.to),
        one.counterpartversion && `version ${count(one.counterpartversion)}`,
      ],
      moved !== undefined && ["Amount", amount(moved, asset, { withCode: true })],
      released !== undefined && ["Released", amount(released, asset, { withCode: true })],
      limit !== undefined && ["Limit", amount(limit, asset, { withCode: true })],
      reason && ["Reason", h("strong", { class: "rejected" }, sentence(reason))],
      name !== undefined && ["Name", said(name)],
      holdId && ["Hold", said(holdId, "id")],
      expires && ["Expires", time(expires, "exact")],
      description && ["Description", said(description)],
      ...Object.entries(metadata ?? {}).map(([key, value]) => [said(key), said(value)]),
      ["Command", h("span", { class: "id" }, one.commandid)],
      ["Event", h("span", { class: "id" }, one.id)],
      ["Chain here", h("span", { class: "id" }, chain)],
    ];
    return [
      h(
        "div",
        { class: "heading" },
        h(
          "h1",
          {},
          h("span", { class: rejected ? "rejected" : "" }, sentence(one.type)),
          h("span", { class: "quiet" }, ` at position ${count(position)}`),
        ),
        h(
          "nav",
          { class: "neighbours", "aria-label": "Events beside this one" },
          position > 1n &&
            h("a", { href: ledger.link(["event", String(position - 1n)]), rel: "prev" }, `‹ ${count(position - 1n)}`),
          h("a", { href: ledger.link(["event", String(position + 1n)]), rel: "next" }, `${count(position + 1n)} ›`),
        ),
      ),
      rejected && h("p", {}, "The command was refused, and recorded. No balance has changed."),
      h(
        "dl",
        { class: "facts" },
        facts.filter(Boolean).map(([term, ...told]) =>
          h(
            "div",
            {},
            h("dt", {}, term),
            h(
              "dd",
              {},
              told.filter(Boolean).flatMap((one, at) => (at ? [h("span", { class: "quiet" }, " · ", one)] : [one])),
            ),
          ),
        ),
      ),
      h("div", { class: "effects" }, accounts.map(effect)),
      h("details", {}, h("summary", {}, "The event as it was recorded"), h("pre", { tabindex: 0 }, stringify(one, 2))),
    ].filter(Boolean);
  }

  function effect({ account_id: accountId, before, after }) {
    const asset = (after ?? before)?.asset;
    const rows = asset
      ? AMOUNTS.map(([of, words]) => {
          const [was, is] = [before?.[of], after?.[of]];
          const by = (is ?? 0n) - (was ?? 0n);
          return h(
            "tr",
            { class: by !== 0n && "changed" },
            h("th", { scope: "row" }, words),
            h("td", { class: "number" }, was === undefined ? "—" : amount(was, asset)),
            h(
              "td",
              { class: "number" },
              is === undefined ? "—" : amount(is, asset),
              by !== 0n && h("span", { class: "narrow" }, change(by, asset)),
            ),
            h("td", { class: "number wide" }, by !== 0n && change(by, asset)),
          );
        })
      : [];
    const states = h(
      "tr",
      { class: before?.status !== after?.status && "changed" },
      h("th", { scope: "row" }, "Status"),
      h("td", { class: "number" }, before ? status(before.status) : "—"),
      h("td", { class: "number" }, after ? status(after.status) : "—"),
      h("td", { class: "wide" }),
    );
    const heading = (words, kind = "") => h("th", { scope: "col", class: `number ${kind}` }, words);
    return h(
      "section",
      { class: "effect" },
      h(
        "h2",
        {},
        said((after ?? before)?.name || accountId),
        " ",
        accountLink(ledger, accountId),
        asset && h("span", { class: "quiet" }, ` ${asset}`),
      ),
      asset
        ? h(
            "table",
            {},
            h("caption", { class: "unseen" }, `The account ${accountId} before and after the event`),
            h("thead", {}, h("tr", {}, h("td", {}), heading("Before"), heading("After"), heading("Change", "wide"))),
            h("tbody", {}, rows, states),
          )
        : h("p", { class: "quiet" }, "There was no such account."),
      h(
        "p",
        { class: "quiet" },
        "See the account ",
        h("a", { href: at(accountId, position - 1n) }, "just before"),
        " or ",
        h("a", { href: at(accountId, position) }, "just after"),
        ".",
      ),
    );
  }

  const at = (accountId, moment) => ledger.linkAt(["account", accountId], moment);

  return {
    title: `Event ${written}`,
    elements: [panel.element],
    show: () => panel.renew(),
    events: look,
    refresh: look,
    close: () => panel.close(),
  };
}

const noPosition = (ledger) => ({
  title: "Not an event",
  elements: [
    h("h1", {}, "This is no event’s position"),
    h("p", {}, "A position is a whole number: the first event is at 1."),
    h("p", {}, h("a", { href: ledger.link([]) }, "To the overview")),
  ],
});
