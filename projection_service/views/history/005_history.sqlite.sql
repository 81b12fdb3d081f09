-- Numbers 1 to 4 were states of this program before its first release, which are refused.

CREATE TABLE history (
    -- Every event of each account, rejections included, in the order of the log: what was once written stays.
    -- The ledger is in `checkpoint.source`; together these are the whole CloudEvent.
    entry INTEGER PRIMARY KEY, -- twice the position, and one more in the history of the account that is not the subject
    account_id TEXT NOT NULL,
    version INTEGER NOT NULL, -- place among the account's events: 1, 2, 3 …
    position INTEGER NOT NULL, -- place in the whole log
    type TEXT NOT NULL, -- as in amount-deposited
    time TEXT NOT NULL, -- RFC 3339 in UTC
    event_id TEXT NOT NULL,
    command_id TEXT NOT NULL, -- of the command that led to it
    traceparent TEXT, -- W3C Trace Context of the request, where it had one
    amount INTEGER, -- in cents, where `data` has one; of a rejection, what was asked for
    data TEXT NOT NULL, -- JSON, as it was written: see it with data ->> '$.description'
    other_account_id TEXT, -- the other account in whose history the event is, where there is one
    other_version INTEGER, -- its place among that account's events
    -- The account after the event. All are NULL where there is none.
    balance INTEGER, -- in cents
    held INTEGER, -- in cents; NULL is 0
    overdraft_limit INTEGER, -- in cents; NULL is 0
    status TEXT, -- NULL is open
    last_updated TEXT, -- NULL is the event's time
    -- Of the account's asset: the sum of all balances after the event, where that has changed it. In cents, decimal: it
    -- may not fit in 64 bits.
    reserve TEXT,
    -- Not WITHOUT ROWID: rows that lie where their account's others are take up to three times as long to write, and
    -- three percent less room at most.
    UNIQUE (account_id, version)
) STRICT;

CREATE TABLE history_accounts (
    -- What is said of each account once and for ever.
    account_id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    asset TEXT NOT NULL, -- as code and decimal places: with USD/2, 1250 is 12.50
    position INTEGER NOT NULL -- of its creation
) STRICT, WITHOUT ROWID;

CREATE TABLE history_reserves (
    -- Where each run of events that were folded together has changed a reserve last, and where each one begins.
    asset TEXT NOT NULL,
    position INTEGER NOT NULL,
    since INTEGER NOT NULL, -- the run's first position: the changes before this one are between them
    PRIMARY KEY (asset, position, since)
) STRICT, WITHOUT ROWID;

CREATE TABLE history_chain (
    -- The ledger's chain (shared/chain.py) at some positions: from there on the events tell it.
    position INTEGER PRIMARY KEY,
    chain BLOB NOT NULL
) STRICT;

CREATE TABLE history_holds (
    -- When each hold was open: from the position at which it was placed to the one before its end. What it is of is in
    -- `history`, in the row of the event that placed it.
    account_id TEXT NOT NULL,
    hold_id TEXT NOT NULL,
    placed INTEGER NOT NULL,
    ended INTEGER, -- NULL while it is open
    -- Of the positions from `placed` to `ended`, the one that the highest power of two divides; 2^62 while it is open.
    -- `forks` (fold.py) tells where all are that were open at a position, without a look at those that were not.
    fork INTEGER NOT NULL,
    PRIMARY KEY (account_id, hold_id, placed)
) STRICT, WITHOUT ROWID;

CREATE INDEX history_holds_by_placed ON history_holds (account_id, fork, placed);
CREATE INDEX history_holds_by_ended ON history_holds (account_id, fork, ended);
