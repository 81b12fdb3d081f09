CREATE TABLE reserve (
    asset text COLLATE "C" PRIMARY KEY,
    amount numeric NOT NULL,
    last_updated text
);

COMMENT ON TABLE reserve IS 'The sum of all balances of each asset: of USD/2, and of all that an account is in.';
COMMENT ON COLUMN reserve.asset IS 'As code and decimal places: with USD/2, 1250 is 12.50.';
COMMENT ON COLUMN reserve.amount IS 'In cents. A sum of 64-bit balances does not fit in 64 bits.';
COMMENT ON COLUMN reserve.last_updated IS 'Time of the last deposit or withdrawal, RFC 3339 in UTC.';

INSERT INTO reserve (asset, amount) VALUES ('USD/2', 0);

CREATE TABLE reserve_assets (
    account_id text COLLATE "C" PRIMARY KEY,
    asset text NOT NULL
);

COMMENT ON TABLE reserve_assets IS 'What each account is in that is not in USD/2: later events do not say it.';
