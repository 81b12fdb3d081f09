CREATE TABLE accounts (
    id text COLLATE "C" PRIMARY KEY,
    name text NOT NULL,
    balance bigint NOT NULL CHECK (balance >= 0),
    version bigint NOT NULL,
    last_updated text NOT NULL
) WITH (fillfactor = 70); -- room for the next state beside the last one: no index changes then

COMMENT ON TABLE accounts IS 'Each account as its last event left it.';
COMMENT ON COLUMN accounts.balance IS 'In cents.';
COMMENT ON COLUMN accounts.version IS 'Of its last event, rejections included.';
COMMENT ON COLUMN accounts.last_updated IS 'Time of the last event that was no rejection, RFC 3339 in UTC.';
