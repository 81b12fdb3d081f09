// Follows the ledger's feed from its first event, in JavaScript and with nothing but Node's own library, and believes no
// event that the ledger has not signed. Run it with `LEDGER_URL=http://127.0.0.1:8080 node examples/follow.mjs`.
import { createHash, createPublicKey, verify } from "node:crypto";

const ledger = process.env.LEDGER_URL ?? "http://127.0.0.1:8080";
let key; // the first one that is seen; who has followed before keeps it, with position and chain
let position = 0;
let chain = Buffer.alloc(32);

// The bytes of each object in a JSON list: what lies between the commas of the list itself.
function* split(batch) {
  for (let at = 1, start = 1, depth = 0, quoted = false; at < batch.length; at++) {
    const byte = String.fromCharCode(batch[at]);
    if (quoted) {
      if (byte === "\\") at++;
      else if (byte === '"') quoted = false;
    } else if (byte === '"') quoted = true;
    else if (byte === "{" || byte === "[") depth++;
    else if ((byte === "}" || byte === "]") && depth-- === 1) yield batch.subarray(start, at + 1);
    else if (byte === "," && depth === 0) start = at + 1;
  }
}

for (;;) {
  const page = await fetch(`${ledger}/events?after=${position}&wait=20`);
  if (!page.ok) throw new Error(`${ledger} answered ${page.status}`);
  const told = (name) => page.headers.get(`Ledger-${name}`);
  key ??= told("Key");
  const events = [...split(Buffer.from(await page.arrayBuffer()))];
  for (const event of events) chain = createHash("sha256").update(chain).update(event).digest();
  position += events.length;
  const publicKey = createPublicKey({
    format: "jwk",
    key: { kty: "OKP", crv: "Ed25519", x: Buffer.from(key, "hex").toString("base64url") },
  });
  const statement = Buffer.from(`${told("Source")}\n${position}\n${chain.toString("hex")}`);
  if (!verify(null, statement, publicKey, Buffer.from(told("Signature"), "hex"))) {
    throw new Error(`up to position ${position}, these are not the events that the ledger has signed`);
  }
  for (const event of events) console.log(event.toString());
}
