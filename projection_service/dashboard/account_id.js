/** What is an account's id. Of what is none, the service is not asked: `account/..` is another path. */

import { h } from "./dom.js";

export const PATTERN =
  /^([A-Za-z0-9_:-][A-Za-z0-9._:-]{0,63}|\.[A-Za-z0-9_:-][A-Za-z0-9._:-]{0,62}|\.\.[A-Za-z0-9._:-]{1,62})$/;
export const RULE = "1 to 64 characters of A-Z a-z 0-9 . _ : -, but not . or .. alone";

/** The page of what is none. */
export const noAccountId = (ledger) => ({
  title: "Not an account",
  elements: [
    h("h1", {}, "This is no account’s id"),
    h("p", {}, `An account’s id is ${RULE}.`),
    h("p", {}, h("a", { href: ledger.link(["accounts"]) }, "All accounts")),
  ],
});
