-- Numbers 1 to 8 were states of this program before its first release, which are refused.

CREATE TABLE ledger (
    -- One row: the head of the log, which every append moves first, so that the order of positions is the order of
    -- commits; the ledger's own name and Ed25519 key (32 secret bytes, then the 32 that are public); how far the relay
    -- has published; and up to which position of the log every event is in `states`.
    one INTEGER PRIMARY KEY CHECK (one = 1),
    source TEXT NOT NULL,
    key BLOB NOT NULL CHECK (length(key) = 64),
    position INTEGER NOT NULL,
    chain BLOB NOT NULL CHECK (length(chain) = 32),
    time TEXT NOT NULL,
    published INTEGER NOT NULL,
    states_position INTEGER NOT NULL
) STRICT;

CREATE TABLE runs (
    -- The log: runs of consecutive events, found by the position of their last one. `events` has a line for each, the
    -- CloudEvent as it is published, byte for byte, and a comma after all but the last, so that runs can be sent as they
    -- are; compressed with zstd. `chain` is the ledger's after the last one.
    position INTEGER PRIMARY KEY,
    chain BLOB NOT NULL CHECK (length(chain) = 32),
    events BLOB NOT NULL
) STRICT;

CREATE TABLE states (
    -- What each account's events have come to, as the domain writes it down, up to the one with this version. What is
    -- missing is in the log, after `ledger.states_position`.
    account_id TEXT PRIMARY KEY CHECK (account_id <> ''),
    version INTEGER NOT NULL,
    state BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE holds (
    -- The open holds, as of the head: not behind it, as `states` is. `expires_at` is written as an event's time is.
    account_id TEXT NOT NULL,
    hold_id TEXT NOT NULL,
    amount INTEGER NOT NULL,
    expires_at TEXT CHECK (expires_at <> ''),
    PRIMARY KEY (account_id, hold_id)
) STRICT, WITHOUT ROWID;

-- For the clerk, who takes the earliest first.
CREATE INDEX holds_by_expiry ON holds (expires_at, account_id, hold_id) WHERE expires_at IS NOT NULL;

CREATE TABLE answers (
    -- What was answered to a request with an Idempotency-Key: JSON, compressed with zstd when it is long. `digest` is
    -- SHA-256 of the outcomes, as JSON; then that over key, fingerprint and the first. What may be long is last, and not
    -- in the way to other keys, as it would be WITHOUT ROWID: the pages where it goes on are read by who asks for it,
    -- and nobody else meets their damage.
    idempotency_key TEXT NOT NULL PRIMARY KEY CHECK (idempotency_key <> ''),
    fingerprint BLOB NOT NULL,
    digest BLOB NOT NULL,
    outcomes BLOB NOT NULL
) STRICT;
