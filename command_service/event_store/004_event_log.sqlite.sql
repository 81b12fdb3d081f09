-- Numbers 1 to 3 were states of this program before its first release, which are refused.

-- One row: the last position used and the ledger's own name. Every append changes it first,
-- so that the order of positions is the order of commits.
CREATE TABLE ledger (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    source TEXT NOT NULL,
    position INTEGER NOT NULL,
    published INTEGER NOT NULL,
    streams_position INTEGER NOT NULL
) STRICT;

-- The log: runs of consecutive events, found by the position of their last one. In `events` each has a line: the
-- CloudEvent as it is published, byte for byte. In `trails` too: the positions of the account's events 1 version
-- before it and, when its version is a multiple of 32, of 1024 and so on, so many versions before it; 0 for none.
CREATE TABLE runs (
    position INTEGER PRIMARY KEY,
    trails TEXT NOT NULL,
    events TEXT NOT NULL
) STRICT;

-- Where each account's stream ends, up to an event at `streams_position` of the log or later; what is missing is in the
-- log. `position` is of the stream's last event; `marks` are those of the last one whose version is a multiple of 32, of
-- the last one whose version is a multiple of 1024, and so on.
-- An account that has only had rejections has no name and no balance.
CREATE TABLE streams (
    account_id TEXT PRIMARY KEY,
    version INTEGER NOT NULL,
    name TEXT,
    balance INTEGER CHECK (balance >= 0),
    position INTEGER NOT NULL,
    marks TEXT NOT NULL,
    CHECK ((name IS NULL) = (balance IS NULL))
) STRICT, WITHOUT ROWID;

-- What was answered to a request with an Idempotency-Key.
CREATE TABLE answers (
    idempotency_key TEXT PRIMARY KEY,
    fingerprint BLOB NOT NULL,
    outcomes TEXT NOT NULL
) STRICT, WITHOUT ROWID;
