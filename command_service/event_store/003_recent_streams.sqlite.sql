-- A row of `streams` is no longer written with every event of its account: only its events after this position may be
-- missing in it, and the log has them.
ALTER TABLE ledger ADD COLUMN streams_position INTEGER NOT NULL DEFAULT 0;

UPDATE ledger SET streams_position = position;
