CREATE TABLE reserve (
    -- One row: the sum of all balances.
    one INTEGER PRIMARY KEY CHECK (one = 1),
    amount TEXT NOT NULL, -- in cents, decimal: a sum of 64-bit balances does not fit in 64 bits
    last_updated TEXT -- time of the last deposit or withdrawal, RFC 3339 in UTC
) STRICT;

INSERT INTO reserve (one, amount) VALUES (1, '0');
