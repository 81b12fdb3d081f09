/** What each account is in: for ever, so it is asked for once. Events do not say it. */

const KNOWN_MAX = 10_000;
const ASKING_MAX = 3;

export class Assets {
  #known = new Map();
  #asking = new Set();

  /** `ask(accountId)` answers with the account; `onKnown()` is called when there is something new. */
  constructor(ask, onKnown) {
    this.ask = ask;
    this.onKnown = onKnown;
  }

  /** Undefined while it is not known. */
  of = (accountId) => this.#known.get(accountId);

  /** Ask for those of `accountIds` that are not known: some of them at a time, the others when they are wanted again. */
  want(accountIds) {
    for (const accountId of accountIds) {
      if (this.#asking.size >= ASKING_MAX) return;
      if (!this.#known.has(accountId) && !this.#asking.has(accountId)) this.#find(accountId);
    }
  }

  async #find(accountId) {
    this.#asking.add(accountId);
    let asset = null; // of an account that is not there
    try {
      asset = (await this.ask(accountId)).asset;
    } catch (error) {
      if (error.status !== 404) asset = undefined;
    }
    this.#asking.delete(accountId);
    if (asset === undefined) return;
    if (this.#known.size >= KNOWN_MAX) this.#known.delete(this.#known.keys().next().value);
    this.#known.set(accountId, asset);
    this.onKnown();
  }
}
