// Follows the ledger's feed from its first event, in JavaScript and with nothing but Node's own library, and believes no
// event that the ledger has not signed. Run it with `LEDGER_URL=http://127.0.0.1:8080 node examples/follow.mjs`.
import { createHash, createPublicKey, verify } from "node:crypto";

const ledger = process.env.LEDGER_URL ?? "http://127.0.0.1:8080";
let key; // the first one that is seen; who has followed before keeps it, with position and chain
let position = 0;
let chain = Buffer.alloc(32);

// The bytes of each event of a batch, which has a line for each; Latin-1 has a character for every byte.
const split = (batch) =>
  batch.length > 2 ? batch.toString("latin1", 1, batch.length - 1).split(",\n").map((line) => Buffer.from(line, "latin1")) : [];

for (;;) {
  const page = await fetch(`${ledger}/events?after=${position}&wait=20`);
  if (!page.ok) throw new Error(`${ledger} answered ${page.status}`);
  const told = (name) => page.headers.get(`Ledger-${name}`);
  key ??= told("Key");
  const events = split(Buffer.from(await page.arrayBuffer()));
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
