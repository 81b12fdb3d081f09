-- Number 1 was a state of this program before its first release, which is refused.

CREATE TABLE accounts (
    -- Each account as its last event left it.
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    asset TEXT NOT NULL, -- what it is in, as code and decimal places: with USD/2, 1250 is 12.50
    balance INTEGER NOT NULL, -- in cents: in the smallest unit of the asset
    held INTEGER NOT NULL CHECK (held >= 0), -- in cents: the sum of its open holds
    overdraft_limit INTEGER NOT NULL CHECK (overdraft_limit >= 0), -- in cents: how far below zero the balance may go
    -- Not IN, for whose list SQLite makes a table of its own each time: five times as long for a row.
    status TEXT NOT NULL CHECK (status = 'open' OR status = 'frozen' OR status = 'closed'),
    version INTEGER NOT NULL, -- of its last event, rejections included
    last_updated TEXT NOT NULL, -- time of the last event that was no rejection, RFC 3339 in UTC
    CHECK (balance - held >= -overdraft_limit)
) STRICT, WITHOUT ROWID;
