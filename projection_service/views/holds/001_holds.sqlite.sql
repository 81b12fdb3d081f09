CREATE TABLE holds_accounts (
    -- The accounts that there are: one that has no open hold is told from one that is not there.
    account_id TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;

CREATE TABLE holds (
    -- The open holds of each account.
    account_id TEXT NOT NULL,
    hold_id TEXT NOT NULL,
    amount INTEGER NOT NULL CHECK (amount > 0), -- in cents
    expires_at TEXT, -- RFC 3339 in UTC, where it does
    description TEXT NOT NULL,
    placed_at TEXT NOT NULL, -- RFC 3339 in UTC
    PRIMARY KEY (account_id, hold_id)
) STRICT, WITHOUT ROWID;
