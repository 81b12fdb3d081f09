CREATE TABLE checkpoint (
    -- One row: how far the views are, and in which ledger. It moves in the transaction that writes the views.
    one INTEGER PRIMARY KEY CHECK (one = 1),
    position INTEGER NOT NULL, -- of the last event in the views
    source TEXT, -- the ledger's name, as in each of its events
    chain BLOB NOT NULL, -- digest of what was folded (shared/chain.py)
    verified_position INTEGER NOT NULL, -- of the last event up to which the ledger has the same
    verified_chain BLOB NOT NULL,
    views TEXT NOT NULL -- JSON: the views that are kept, each with the number of its last migration
) STRICT;

INSERT INTO checkpoint (one, position, chain, verified_position, verified_chain, views)
VALUES (1, 0, zeroblob(32), 0, zeroblob(32), '{}');
