/** What stands in many places of the page: an amount that leads to its event, an account, an event in words. */

import { h, said } from "./dom.js";
import { change, code, isRejection, money, sentence } from "./words.js";

/** An amount, with its asset's code where `withCode`; `href` is where it comes from. */
export function amount(value, asset, { href = null, withCode = false, signed = false, kind = "" } = {}) {
  const shown = signed ? change(value, asset) : money(value, asset);
  const classes = `amount ${value < 0n ? "negative" : ""} ${signed && value > 0n ? "positive" : ""} ${kind}`;
  return h(
    href ? "a" : "span",
    { class: classes.trim(), href, title: href && "Explain: the event that it comes from" },
    shown,
    withCode && h("span", { class: "code" }, " ", code(asset)),
  );
}

export const accountLink = (ledger, accountId) =>
  h("a", { href: ledger.link(["account", accountId]), class: "id" }, said(accountId, ""));

/** The link to an event is of now or of the page's moment, as the page is. */
export const positionLink = (ledger, position, shown = String(position)) =>
  h("a", { href: ledger.link(["event", String(position)]), class: "position" }, shown);

export const status = (name) => h("span", { class: `badge ${name}` }, sentence(name));

/** An event's type, and what came with it. */
export function story(type, { reason, description, hold_id: holdId, name }, counterpart = null) {
  const rejected = isRejection(type);
  return h(
    "div",
    { class: "story" },
    h("span", { class: rejected ? "type rejected" : "type" }, sentence(type)),
    reason && h("span", { class: "reason" }, sentence(reason)),
    counterpart,
    holdId && h("span", { class: "detail" }, "hold ", said(holdId)),
    (description || name) && said(description || name, "detail said"),
  );
}
