-- Numbers 1 and 2 were states of this program before its first release, which are refused.

CREATE TABLE checkpoint (
    -- One row: how far the views are, and in which ledger. It moves in the transaction that writes the views.
    one INTEGER PRIMARY KEY CHECK (one = 1),
    position INTEGER NOT NULL, -- of the last event in the views
    source TEXT, -- the ledger's name, as in each of its events
    chain BLOB NOT NULL, -- the ledger's, over what was folded (shared/chain.py)
    key BLOB, -- the public one that the ledger signs its chain with
    views TEXT NOT NULL, -- JSON: the views that are kept, each with the number of its last migration
    rebuilds INTEGER NOT NULL -- how often other tables were put in the place of these, at the same position
) STRICT;

INSERT INTO checkpoint (one, position, chain, views, rebuilds) VALUES (1, 0, zeroblob(32), '{}', 0);
