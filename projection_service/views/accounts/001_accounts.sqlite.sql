CREATE TABLE accounts (
    -- Each account as its last event left it.
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    balance INTEGER NOT NULL CHECK (balance >= 0), -- in cents
    version INTEGER NOT NULL, -- of its last event, rejections included
    last_updated TEXT NOT NULL -- time of the last event that was no rejection, RFC 3339 in UTC
) STRICT, WITHOUT ROWID;
