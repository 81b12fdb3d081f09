-- One row: how far the views are, in which ledger, and the reserve, a sum that can be over 64 bits.
-- `chain` is the ledger's over what was folded (shared/chain.py), `key` the public one that it signs it with.
CREATE TABLE checkpoint (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    position bigint NOT NULL,
    source text,
    reserve numeric NOT NULL,
    reserve_last_updated text,
    chain bytea NOT NULL,
    "key" bytea
);

INSERT INTO checkpoint (position, reserve, chain) VALUES (0, 0, decode(repeat('00', 32), 'hex'));

CREATE TABLE accounts (
    id text COLLATE "C" PRIMARY KEY,
    name text NOT NULL,
    balance bigint NOT NULL CHECK (balance >= 0),
    version bigint NOT NULL,
    last_updated text NOT NULL
) WITH (fillfactor = 70); -- room for the next state beside the last one: no index changes then
