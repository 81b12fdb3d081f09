-- Number 1 was a state of this program before its first release, which is refused.

CREATE TABLE history (
    entry bigint PRIMARY KEY,
    account_id text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    position bigint NOT NULL,
    type text NOT NULL,
    time text NOT NULL,
    event_id text NOT NULL,
    command_id text NOT NULL,
    traceparent text,
    amount bigint,
    data json NOT NULL, -- and not jsonb, which would not keep its bytes
    other_account_id text COLLATE "C",
    other_version bigint,
    other_is_subject boolean,
    UNIQUE (account_id, version)
);

COMMENT ON TABLE history IS 'Every event of each account, rejections included: what was once written stays. '
    'The ledger is in checkpoint.source; together these are the whole CloudEvent.';
COMMENT ON COLUMN history.entry IS 'Twice the position, and one more in the history of the account that is not the subject.';
COMMENT ON COLUMN history.version IS 'Place among the account''s events: 1, 2, 3 …';
COMMENT ON COLUMN history.position IS 'Place in the whole log.';
COMMENT ON COLUMN history.type IS 'As in amount-deposited.';
COMMENT ON COLUMN history.time IS 'RFC 3339 in UTC.';
COMMENT ON COLUMN history.command_id IS 'Of the command that led to it.';
COMMENT ON COLUMN history.traceparent IS 'W3C Trace Context of the request, where it had one.';
COMMENT ON COLUMN history.amount IS 'In cents, where data has one; of a rejection, what was asked for.';
COMMENT ON COLUMN history.data IS 'As it was written: see it with data ->> ''description''.';
COMMENT ON COLUMN history.other_account_id IS 'The other account in whose history the event is, where there is one.';
COMMENT ON COLUMN history.other_version IS 'Its place among that account''s events.';
COMMENT ON COLUMN history.other_is_subject IS 'Is it the other one that the money comes from?';
