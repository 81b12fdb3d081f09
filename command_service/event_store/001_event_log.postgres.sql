-- One row: the last position used and the ledger's own name. Every append locks it first,
-- so that the order of positions is the order of commits.
CREATE TABLE ledger (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    source text NOT NULL,
    position bigint NOT NULL
);

-- The log. `event` is the CloudEvent as it is published, byte for byte.
CREATE TABLE events (
    position bigint PRIMARY KEY,
    account_id text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    event text NOT NULL,
    UNIQUE (account_id, version)
);

-- Where each account's stream stands, so that no decision ever replays it.
-- An account that has only had rejections has no name and no balance.
CREATE TABLE streams (
    account_id text COLLATE "C" PRIMARY KEY,
    version bigint NOT NULL,
    name text,
    balance bigint CHECK (balance >= 0),
    CHECK ((name IS NULL) = (balance IS NULL))
) WITH (fillfactor = 70); -- room for the next state beside the last one: no index changes then

-- What was answered to a request with an Idempotency-Key.
CREATE TABLE answers (
    idempotency_key text COLLATE "C" PRIMARY KEY,
    fingerprint bytea NOT NULL,
    outcomes text NOT NULL
);

-- One row: how far the relay has published, and which relay may move that on until when.
-- A token is never given twice, so that a relay that lost its lease cannot move the cursor.
CREATE TABLE relay (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    published bigint NOT NULL,
    token bigint NOT NULL,
    leased_until timestamptz NOT NULL
);

INSERT INTO relay (published, token, leased_until) VALUES (0, 0, '-infinity');
