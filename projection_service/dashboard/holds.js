/** An account's open holds. The service knows those of now; those of another moment are found in the statement. */

import { get } from "./api.js";

const HOLDS_MAX = 100;
const PAGES_MAX = 20;
const PAGE_ENTRIES = 500;

/** `path` is the account's. The first of its holds by their ids, and whether there may be more. */
export async function openHolds(ledger, path, signal) {
  const account = await ledger.get(path, {}, signal);
  const found =
    ledger.at === null ? await ofNow(ledger, path, signal) : await ofThen(ledger, path, account.held, signal);
  return { asset: account.asset, ...found };
}

async function ofNow(ledger, path, signal) {
  const holds = await ledger.get(`${path}/holds`, { limit: HOLDS_MAX }, signal);
  return { holds, isAll: holds.length < HOLDS_MAX };
}

/** Of each id, the newest entry says whether it was open then. When they add up to what was held, they are all. */
async function ofThen(ledger, path, held, signal) {
  const met = new Set();
  const placed = [];
  let cursor = null;
  for (let pages = 0; held > 0n && pages < PAGES_MAX && (pages === 0 || cursor); pages++) {
    const page = await ledger.get(`${path}/statement`, { limit: PAGE_ENTRIES, cursor }, signal);
    for (const entry of page.entries) {
      if (!entry.hold_id || met.has(entry.hold_id) || entry.change_of_held === 0n) continue;
      met.add(entry.hold_id);
      if (entry.type !== "hold-placed") continue;
      placed.push(entry);
      held -= entry.change_of_held;
    }
    cursor = page.next;
  }
  placed.sort((one, other) => (one.hold_id < other.hold_id ? -1 : 1));
  const holds = placed.slice(0, HOLDS_MAX).map(async (entry) => {
    const { data } = await get(`events/${entry.position}`, {}, signal);
    return {
      ...entry,
      amount: entry.change_of_held,
      expires_at: data.event.data.expires_at ?? null,
      placed_at: entry.time,
    };
  });
  return { holds: await Promise.all(holds), isAll: held === 0n && placed.length <= HOLDS_MAX };
}
