-- Numbers 1 to 4 were states of this program before its first release, which are refused.

CREATE TABLE history (
    entry bigint PRIMARY KEY,
    account_id text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    position bigint NOT NULL,
    type text NOT NULL,
    time text COLLATE "C" NOT NULL,
    event_id text NOT NULL,
    command_id text NOT NULL,
    traceparent text,
    amount bigint,
    data json NOT NULL, -- and not jsonb, which would not keep its bytes
    other_account_id text COLLATE "C",
    other_version bigint,
    balance bigint,
    held bigint,
    overdraft_limit bigint,
    status text,
    last_updated text COLLATE "C",
    reserve numeric,
    UNIQUE (account_id, version) INCLUDE (entry) -- which tells the position without a look at the row
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
COMMENT ON COLUMN history.balance IS 'In cents: of the account after the event. NULL where there is no account, as all that follow.';
COMMENT ON COLUMN history.held IS 'In cents, after the event; NULL is 0.';
COMMENT ON COLUMN history.overdraft_limit IS 'In cents, after the event; NULL is 0.';
COMMENT ON COLUMN history.status IS 'After the event; NULL is open.';
COMMENT ON COLUMN history.last_updated IS 'After the event; NULL is its time.';
COMMENT ON COLUMN history.reserve IS 'In cents: the sum of all balances of the account''s asset after the event, '
    'where that has changed it. It may not fit in 64 bits.';

CREATE TABLE history_accounts (
    account_id text COLLATE "C" PRIMARY KEY,
    name text NOT NULL,
    asset text NOT NULL,
    position bigint NOT NULL
);

COMMENT ON TABLE history_accounts IS 'What is said of each account once and for ever.';
COMMENT ON COLUMN history_accounts.asset IS 'As code and decimal places: with USD/2, 1250 is 12.50.';
COMMENT ON COLUMN history_accounts.position IS 'Of its creation.';

CREATE TABLE history_reserves (
    asset text COLLATE "C",
    position bigint,
    since bigint NOT NULL,
    PRIMARY KEY (asset, position, since)
);

COMMENT ON TABLE history_reserves IS 'Where each run of events that were folded together has changed a reserve last, '
    'and where each one begins.';
COMMENT ON COLUMN history_reserves.since IS 'The run''s first position: the changes before this one are between them.';

CREATE TABLE history_chain (
    position bigint PRIMARY KEY,
    chain bytea NOT NULL
);

COMMENT ON TABLE history_chain IS 'The ledger''s chain (shared/chain.py) at some positions: from there on the events tell it.';

CREATE TABLE history_holds (
    account_id text COLLATE "C",
    hold_id text COLLATE "C",
    placed bigint,
    ended bigint,
    fork bigint NOT NULL,
    PRIMARY KEY (account_id, hold_id, placed)
);

CREATE INDEX history_holds_by_placed ON history_holds (account_id, fork, placed);
CREATE INDEX history_holds_by_ended ON history_holds (account_id, fork, ended);

COMMENT ON TABLE history_holds IS 'When each hold was open: from the position at which it was placed to the one before '
    'its end. What it is of is in history, in the row of the event that placed it.';
COMMENT ON COLUMN history_holds.ended IS 'NULL while it is open.';
COMMENT ON COLUMN history_holds.fork IS 'Of the positions from placed to ended, the one that the highest power of two '
    'divides; 2^62 while it is open. What forks (fold.py) tells is where all are that were open at a position, without a '
    'look at those that were not.';
