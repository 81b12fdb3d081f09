/** All accounts: by the beginning of their names, in an asset, of a status, sorted. */

import { h, reconcile, said, table } from "../dom.js";
import { accountLink, amount, status } from "../figures.js";
import { Pager } from "../pager.js";
import { Panel } from "../panel.js";
import { time } from "../words.js";

const PAGE_ACCOUNTS = 50;
const EMPTY_PAGES_MAX = 20;
/** The service tells no more of them at a time. */
const ASSETS_MAX = 1_000;
const REFRESH_MILLISECONDS = 1_000;
const TYPING_MILLISECONDS = 250;
const STATUSES = ["open", "frozen", "closed"];
/** What of a link's parameters is for the query: it refuses others. */
const ASKED = ["prefix", "asset", "status", "sort", "order"];
const SORTS = [
  ["name", "Name"],
  ["id", "Id"],
  ["balance", "Balance"],
  ["last_updated", "Last change"],
];
const SORTS_OF_THE_PAST = ["name", "id"];

export function accounts(ledger) {
  let typing = null;
  const list = table("Accounts", [
    ["Account"],
    ["Status", "wide"],
    ["Balance", "number"],
    ["Held", "number wide"],
    ["Available", "number wide"],
    ["Last change", "wide"],
  ]);
  const pager = new Pager("Pages of accounts", () => panel.renew());

  const prefix = h("input", {
    type: "search",
    id: "prefix",
    placeholder: "Beginning of the name",
    autocomplete: "off",
    oninput: () => {
      clearTimeout(typing);
      typing = setTimeout(() => ledger.narrow({ prefix: prefix.value }), TYPING_MILLISECONDS);
    },
  });
  const select = (id, options) =>
    h(
      "select",
      { id, onchange: (changed) => ledger.narrow({ [id]: changed.target.value }) },
      options.map(([value, words]) => h("option", { value }, words)),
    );
  const asset = select("asset", [["", "All assets"]]);
  const state = select("status", [["", "Any status"], ...STATUSES.map((name) => [name, name])]);
  const sort = select("sort", SORTS);
  const order = select("order", [
    ["asc", "Ascending"],
    ["desc", "Descending"],
  ]);
  const field = (label, input, ...beside) =>
    h(
      "div",
      { class: "field" },
      h("label", { for: input.id }, label),
      beside.length ? h("div", { class: "joined" }, input, ...beside) : input,
    );
  const direct = h("input", {
    type: "text",
    id: "account-id",
    placeholder: "Id",
    autocomplete: "off",
    spellcheck: "false",
  });

  const panel = new Panel(null, {
    every: REFRESH_MILLISECONDS,
    load: async (signal) => {
      const asked = Object.fromEntries(ASKED.map((name) => [name, ledger.route.parameters[name]]));
      let page = { accounts: [], next: pager.cursor };
      // A page may be empty though there are more: the service looks at so many accounts at a time.
      for (let pages = 0; !page.accounts.length && (pages === 0 || page.next) && pages < EMPTY_PAGES_MAX; pages++) {
        page = await ledger.get("accounts", { ...asked, limit: PAGE_ACCOUNTS, cursor: page.next }, signal);
      }
      return page;
    },
    draw: (page, body) => {
      pager.show(page.next);
      if (!page.accounts.length) {
        const words = page.next
          ? "None so far: there are more to look through."
          : isFiltered()
            ? "No account is like that."
            : "There are no accounts yet.";
        return body.replaceChildren(h("p", { class: "quiet" }, words), pager.element);
      }
      if (list.element.parentElement !== body) body.replaceChildren(list.element, pager.element);
      reconcile(list.body, page.accounts, {
        key: (account) => account.id,
        signature: (account) => `${account.version} ${ledger.at}`,
        make: row,
      });
    },
  });

  const isFiltered = () => ["prefix", "asset", "status"].some((name) => ledger.route.parameters[name]);

  function row(account) {
    const why = (of) => ({ href: ledger.link(["why", "account", account.id, of]) });
    return h(
      "tr",
      {},
      h(
        "td",
        {},
        h(
          "div",
          { class: "story" },
          said(account.name || "(no name)", "name said"),
          accountLink(ledger, account.id),
          account.status !== "open" && h("span", { class: "narrow" }, status(account.status)),
        ),
      ),
      h("td", { class: "wide" }, status(account.status)),
      h("td", { class: "number" }, amount(account.balance, account.asset, { ...why("balance"), withCode: true })),
      h("td", { class: "number wide" }, amount(account.held, account.asset, why("held"))),
      h("td", { class: "number wide" }, amount(account.available, account.asset, why("available"))),
      h("td", { class: "wide" }, time(account.last_updated)),
    );
  }

  async function offerAssets() {
    try {
      const reserves = await ledger.get("reserves", { limit: ASSETS_MAX });
      const offered = new Set([...asset.options].map((option) => option.value));
      const others = reserves.map((reserve) => reserve.asset).filter((name) => !offered.has(name));
      asset.append(...others.map((name) => h("option", { value: name }, name)));
      if (reserves.length === ASSETS_MAX)
        asset.append(h("option", { disabled: true }, "Others: choose them on the overview"));
    } catch {
      // The list below says what is wrong.
    }
  }
  offerAssets();

  return {
    title: "Accounts",
    elements: [
      h("h1", {}, "Accounts"),
      h(
        "div",
        { class: "filters" },
        h(
          "form",
          { role: "search", class: "fields", onsubmit: (submitted) => submitted.preventDefault() },
          field("Name", prefix),
          field("Asset", asset),
          field("Status", state),
          field("Sort by", sort),
          field("Order", order),
        ),
        h(
          "form",
          {
            class: "fields",
            onsubmit: (submitted) => {
              submitted.preventDefault();
              if (direct.value.trim()) location.hash = ledger.link(["account", direct.value.trim()]);
            },
          },
          field("Go to an account", direct, h("button", { type: "submit" }, "Go")),
        ),
      ),
      panel.element,
    ],
    show() {
      const asked = ledger.route.parameters;
      if (document.activeElement !== prefix) prefix.value = asked.prefix ?? "";
      state.value = asked.status ?? "";
      sort.value = asked.sort ?? "name";
      order.value = asked.order ?? "asc";
      for (const option of sort.options) {
        // Balances of different assets cannot be compared, and the past is kept in some orders only.
        option.disabled =
          (option.value === "balance" && !asked.asset) ||
          (ledger.at !== null && !SORTS_OF_THE_PAST.includes(option.value));
      }
      if (sort.selectedOptions[0]?.disabled) return ledger.narrow({ sort: "", order: "" });
      if (asked.asset && ![...asset.options].some((option) => option.value === asked.asset)) {
        asset.append(h("option", { value: asked.asset }, asked.asset));
      }
      asset.value = asked.asset ?? "";
      pager.toTheFirst();
      panel.renew();
    },
    events: () => ledger.at === null && panel.refresh(),
    refresh: () => panel.refresh(),
    close: () => panel.close(),
  };
}
