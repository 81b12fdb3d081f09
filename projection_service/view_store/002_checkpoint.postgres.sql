CREATE TABLE checkpoint (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    position bigint NOT NULL,
    source text,
    chain bytea NOT NULL,
    verified_position bigint NOT NULL,
    verified_chain bytea NOT NULL,
    views text NOT NULL
);

COMMENT ON TABLE checkpoint IS 'One row: how far the views are, and in which ledger. '
    'It moves in the transaction that writes the views.';
COMMENT ON COLUMN checkpoint.position IS 'Of the last event in the views.';
COMMENT ON COLUMN checkpoint.source IS 'The ledger''s name, as in each of its events.';
COMMENT ON COLUMN checkpoint.chain IS 'Digest of what was folded (shared/chain.py).';
COMMENT ON COLUMN checkpoint.verified_position IS 'Of the last event up to which the ledger has the same.';
COMMENT ON COLUMN checkpoint.views IS 'JSON: the views that are kept, each with the number of its last migration.';

INSERT INTO checkpoint (position, chain, verified_position, verified_chain, views)
VALUES (0, decode(repeat('00', 32), 'hex'), 0, decode(repeat('00', 32), 'hex'), '{}');
