CREATE TABLE reserve (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    amount numeric NOT NULL,
    last_updated text
);

COMMENT ON TABLE reserve IS 'One row: the sum of all balances.';
COMMENT ON COLUMN reserve.amount IS 'In cents. A sum of 64-bit balances does not fit in 64 bits.';
COMMENT ON COLUMN reserve.last_updated IS 'Time of the last deposit or withdrawal, RFC 3339 in UTC.';

INSERT INTO reserve (amount) VALUES (0);
