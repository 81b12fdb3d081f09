CREATE TABLE holds_accounts (
    account_id text COLLATE "C" PRIMARY KEY
);
COMMENT ON TABLE holds_accounts IS 'The accounts that there are: one that has no open hold is told from one that is not there.';

CREATE TABLE holds (
    account_id text COLLATE "C",
    hold_id text COLLATE "C",
    amount bigint NOT NULL CHECK (amount > 0),
    expires_at text,
    description text NOT NULL,
    placed_at text NOT NULL,
    PRIMARY KEY (account_id, hold_id)
);
COMMENT ON TABLE holds IS 'The open holds of each account.';
COMMENT ON COLUMN holds.amount IS 'In cents.';
COMMENT ON COLUMN holds.expires_at IS 'RFC 3339 in UTC, where it does.';
COMMENT ON COLUMN holds.placed_at IS 'RFC 3339 in UTC.';
