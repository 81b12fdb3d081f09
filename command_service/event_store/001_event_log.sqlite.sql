-- One row: the last position used and the ledger's own name. Every append changes it first,
-- so that the order of positions is the order of commits.
CREATE TABLE ledger (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    source TEXT NOT NULL,
    position INTEGER NOT NULL,
    published INTEGER NOT NULL
) STRICT;

-- The log. `event` is the CloudEvent as it is published, byte for byte.
CREATE TABLE events (
    position INTEGER PRIMARY KEY,
    account_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    event TEXT NOT NULL,
    UNIQUE (account_id, version)
) STRICT;

-- Where each account's stream stands, so that no decision ever replays it.
-- An account that has only had rejections has no name and no balance.
CREATE TABLE streams (
    account_id TEXT PRIMARY KEY,
    version INTEGER NOT NULL,
    name TEXT,
    balance INTEGER CHECK (balance >= 0),
    CHECK ((name IS NULL) = (balance IS NULL))
) STRICT, WITHOUT ROWID;

-- What was answered to a request with an Idempotency-Key.
CREATE TABLE answers (
    idempotency_key TEXT PRIMARY KEY,
    fingerprint BLOB NOT NULL,
    outcomes TEXT NOT NULL
) STRICT, WITHOUT ROWID;
