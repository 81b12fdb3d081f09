-- Numbers 1 and 2 were states of this program before its first release, which are refused.

CREATE TABLE checkpoint (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    position bigint NOT NULL,
    source text,
    chain bytea NOT NULL,
    key bytea,
    views text NOT NULL,
    rebuilds bigint NOT NULL
);

COMMENT ON TABLE checkpoint IS 'One row: how far the views are, and in which ledger. '
    'It moves in the transaction that writes the views.';
COMMENT ON COLUMN checkpoint.position IS 'Of the last event in the views.';
COMMENT ON COLUMN checkpoint.source IS 'The ledger''s name, as in each of its events.';
COMMENT ON COLUMN checkpoint.chain IS 'The ledger''s, over what was folded (shared/chain.py).';
COMMENT ON COLUMN checkpoint.key IS 'The public one that the ledger signs its chain with.';
COMMENT ON COLUMN checkpoint.views IS 'JSON: the views that are kept, each with the number of its last migration.';
COMMENT ON COLUMN checkpoint.rebuilds IS 'How often other tables were put in the place of these, at the same position.';

INSERT INTO checkpoint (position, chain, views, rebuilds) VALUES (0, decode(repeat('00', 32), 'hex'), '{}', 0);
