-- One row: how far the views are, in which ledger, and the reserve.
-- `reserve` is decimal text: a sum of 64-bit balances does not fit in 64 bits.
-- `chain` is the ledger's over what was folded (shared/chain.py), `key` the public one that it signs it with.
CREATE TABLE checkpoint (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    position INTEGER NOT NULL,
    source TEXT,
    reserve TEXT NOT NULL,
    reserve_last_updated TEXT,
    chain BLOB NOT NULL,
    "key" BLOB
) STRICT;

INSERT INTO checkpoint (one, position, reserve, chain) VALUES (1, 0, '0', zeroblob(32));

CREATE TABLE accounts (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    balance INTEGER NOT NULL CHECK (balance >= 0),
    version INTEGER NOT NULL,
    last_updated TEXT NOT NULL
) STRICT, WITHOUT ROWID;
