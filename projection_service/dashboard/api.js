/** What the service answers, with every integer as a BigInt: amounts go beyond 2^53. */

const ANSWER_MILLISECONDS_MAX = 20_000;

// The newest things that this page needs: without them it does not begin, and `start.js` says so.
if (!("rawJSON" in JSON && "any" in AbortSignal)) throw new Error("This browser is older than this page.");

export class Problem extends Error {
  constructor(status, document) {
    super(document.detail ?? document.title ?? `The service answered ${status}.`);
    this.status = status;
  }
}

/** The page cannot reach the service. */
export class Unreachable extends Error {
  constructor() {
    super("The service does not answer. The page goes on by itself when it does.");
  }
}

/** Asked for a moment, the service has answered for another one. */
export class NotOfThen extends Error {
  status = 422;

  constructor() {
    super("This projection does not tell how it was then.");
  }
}

/** JSON. The text of each number is there as it was sent, before it is made a float. */
export function parse(text) {
  return JSON.parse(text, (_, value, context) =>
    typeof value === "number" && /^-?\d+$/.test(context.source) ? BigInt(context.source) : value,
  );
}

/** For values from `parse`. */
export const stringify = (value, space) =>
  JSON.stringify(value, (_, one) => (typeof one === "bigint" ? JSON.rawJSON(String(one)) : one), space);

/** `path` with those of `parameters` that say something. */
export function address(path, parameters) {
  const said = Object.entries(parameters).filter(([, value]) => ![undefined, null, "", false].includes(value));
  const query = new URLSearchParams(said.map(([name, value]) => [name, String(value)])).toString();
  return path + (query && "?" + query);
}

/**
 * The answer's data, and the position at which it holds.
 *
 * Throws `Problem` with what the service says is wrong, `Unreachable`, and an AbortError when `signal` says so.
 */
export async function get(path, parameters = {}, signal = undefined) {
  const timeout = AbortSignal.timeout(ANSWER_MILLISECONDS_MAX);
  let response, text;
  try {
    response = await fetch(address(path, parameters), {
      headers: { Accept: "application/json" },
      // What was kept may be another ledger's, that was at this address before.
      cache: "no-cache",
      signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
    });
    text = await response.text();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Unreachable();
  }
  let data;
  try {
    data = parse(text);
  } catch {
    data = {}; // a proxy between here and the service has its own way to say what is wrong
  }
  if (!response.ok) throw new Problem(response.status, data);
  const position = response.headers.get("Ledger-Position");
  return { data, position: position === null ? null : BigInt(position) };
}
