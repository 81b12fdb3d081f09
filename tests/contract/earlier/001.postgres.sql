-- PostgreSQL, number 1 of the earlier states of this program, with one event.
CREATE SCHEMA ledger;
SET search_path = ledger;
CREATE TABLE migrations (number integer PRIMARY KEY);
INSERT INTO migrations VALUES (1);

CREATE TABLE ledger (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    source text NOT NULL,
    position bigint NOT NULL
);

CREATE TABLE events (
    position bigint PRIMARY KEY,
    account_id text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    event text NOT NULL,
    UNIQUE (account_id, version)
);

CREATE TABLE streams (
    account_id text COLLATE "C" PRIMARY KEY,
    version bigint NOT NULL,
    name text,
    balance bigint CHECK (balance >= 0),
    CHECK ((name IS NULL) = (balance IS NULL))
) WITH (fillfactor = 70);

CREATE TABLE answers (
    idempotency_key text COLLATE "C" PRIMARY KEY,
    fingerprint bytea NOT NULL,
    outcomes text NOT NULL
);

CREATE TABLE relay (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    published bigint NOT NULL,
    token bigint NOT NULL,
    leased_until timestamptz NOT NULL
);

INSERT INTO relay (published, token, leased_until) VALUES (0, 0, '-infinity');
INSERT INTO ledger (source, position) VALUES ('/ledgers/earlier', 1);
INSERT INTO events VALUES (1, 'alice', 1, '{"specversion":"1.0","id":"event-1","source":"/ledgers/earlier","type":"account-created","subject":"alice","time":"2026-01-01T00:00:01.000000Z","datacontenttype":"application/json","sequence":"00000000000000000001","accountversion":1,"commandid":"command-1","data":{"name":"Alice"}}');
INSERT INTO streams VALUES ('alice', 1, 'Alice', 0);
