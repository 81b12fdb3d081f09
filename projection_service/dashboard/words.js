/** How amounts, times and names of the contract are written for people. */

import { h } from "./dom.js";

const MINUS = "\u2212";

/** The decimal places of an asset such as "USD/2". */
export const places = (asset) => Number(asset.split("/")[1]);

export const code = (asset) => asset.split("/")[0];

/** An amount, a BigInt in the asset's smallest unit, exactly: 125000n of USD/2 is "1,250.00". */
export function money(amount, asset) {
  const digits = String(amount < 0n ? -amount : amount).padStart(places(asset) + 1, "0");
  const cut = digits.length - places(asset);
  const whole = digits.slice(0, cut).replace(/\B(?=(\d{3})+$)/g, ",");
  return (amount < 0n ? MINUS : "") + whole + (places(asset) ? "." + digits.slice(cut) : "");
}

/** The same with a plus, for what has changed. */
export const change = (amount, asset) => (amount > 0n ? "+" : "") + money(amount, asset);

/** For the scale of a chart only: it may be a little off. */
export const approximate = (amount, asset) => Number(amount) / 10 ** places(asset);

export const count = (number) => String(number).replace(/\B(?=(\d{3})+$)/g, ",");

/** "amount-deposited" as "Amount deposited": so are types, reasons and statuses of which this page has never heard. */
export const sentence = (name) => (name.charAt(0).toUpperCase() + name.slice(1)).replaceAll("-", " ");

export const isRejection = (type) => type.endsWith("-rejected");

/** An event's time, all of it. */
export const exactly = (text) => `${text.slice(0, 10)} ${text.slice(11).replace("Z", "")}`;

/** An event's time: its "clock" alone, its "date" to the second, or "exact"; all of it is in the title. */
export function time(text, kind = "date") {
  const exact = exactly(text);
  const shown = { clock: exact.slice(11, 23), date: exact.slice(0, 19), exact }[kind];
  return h("time", { datetime: text, title: `${exact} UTC` }, shown);
}

/** In RFC 3339, a moment as people, this page or a log write it: to the minute at least, of UTC by itself. Else null. */
export function moment(text) {
  const parts = /^(\d{4}-\d\d-\d\d)(?:\s+|T)(\d\d:\d\d)(:\d\d(?:\.\d+)?)?\s*(Z|UTC|[+-]\d\d:\d\d)?$/i.exec(text.trim());
  if (!parts) return null;
  const [, day, minute, seconds = ":00", offset = "Z"] = parts;
  return `${day}T${minute}${seconds}${/^utc$/i.test(offset) ? "Z" : offset}`;
}

/** Seconds as "0.4 s", "12 s", "3 min" or "2 h". */
export function duration(seconds) {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  return seconds < 7200 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
}
