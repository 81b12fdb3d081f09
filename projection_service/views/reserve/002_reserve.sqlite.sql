CREATE TABLE reserve (
    -- The sum of all balances of each asset: of USD/2, and of all that an account is in.
    asset TEXT PRIMARY KEY, -- as code and decimal places: with USD/2, 1250 is 12.50
    amount TEXT NOT NULL, -- in cents, decimal: a sum of 64-bit balances does not fit in 64 bits
    last_updated TEXT -- time of the last deposit or withdrawal, RFC 3339 in UTC
) STRICT, WITHOUT ROWID;

INSERT INTO reserve (asset, amount) VALUES ('USD/2', '0');

CREATE TABLE reserve_assets (
    -- What each account is in that is not in USD/2: later events do not say it.
    account_id TEXT PRIMARY KEY,
    asset TEXT NOT NULL
) STRICT, WITHOUT ROWID;
