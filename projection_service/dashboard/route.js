/** Places on the page: `#/account/alice?at=123` is one that can be sent to a colleague. */

import { address } from "./api.js";

/** `path` is a list of decoded parts; `at` a position, as of which everything is, or null. */
export function read(fragment) {
  const [path, query = ""] = fragment.replace(/^#/, "").split(/\?(.*)/s);
  const parameters = Object.fromEntries(new URLSearchParams(query));
  const at = /^\d{1,19}$/.test(parameters.at ?? "") ? BigInt(parameters.at) : null;
  delete parameters.at;
  return { path: path.split("/").filter(Boolean).map(decoded), parameters, at };
}

export function link({ path, parameters = {}, at = null }) {
  return address("#/" + path.map(encodeURIComponent).join("/"), { ...parameters, at });
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part; // somebody has typed it
  }
}
