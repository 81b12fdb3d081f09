-- Number 1 was a state of this program before its first release, which is refused.

CREATE TABLE accounts (
    id text COLLATE "C" PRIMARY KEY,
    name text NOT NULL,
    asset text NOT NULL,
    balance bigint NOT NULL,
    held bigint NOT NULL CHECK (held >= 0),
    overdraft_limit bigint NOT NULL CHECK (overdraft_limit >= 0),
    status text NOT NULL CHECK (status IN ('open', 'frozen', 'closed')),
    version bigint NOT NULL,
    last_updated text NOT NULL,
    CONSTRAINT balance_within_limit CHECK (balance - held >= -overdraft_limit)
) WITH (fillfactor = 70); -- room for the next state beside the last one: no index changes then

COMMENT ON TABLE accounts IS 'Each account as its last event left it.';
COMMENT ON COLUMN accounts.asset IS 'What it is in, as code and decimal places: with USD/2, 1250 is 12.50.';
COMMENT ON COLUMN accounts.balance IS 'In cents: in the smallest unit of the asset.';
COMMENT ON COLUMN accounts.held IS 'In cents: the sum of its open holds.';
COMMENT ON COLUMN accounts.overdraft_limit IS 'In cents: how far below zero the balance may go.';
COMMENT ON COLUMN accounts.version IS 'Of its last event, rejections included.';
COMMENT ON COLUMN accounts.last_updated IS 'Time of the last event that was no rejection, RFC 3339 in UTC.';
