-- SQLite, number 1 of the earlier states of this program, with one event.
CREATE TABLE ledger (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    source TEXT NOT NULL,
    position INTEGER NOT NULL,
    published INTEGER NOT NULL
) STRICT;

CREATE TABLE events (
    position INTEGER PRIMARY KEY,
    account_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    event TEXT NOT NULL,
    UNIQUE (account_id, version)
) STRICT;

CREATE TABLE streams (
    account_id TEXT PRIMARY KEY,
    version INTEGER NOT NULL,
    name TEXT,
    balance INTEGER CHECK (balance >= 0),
    CHECK ((name IS NULL) = (balance IS NULL))
) STRICT, WITHOUT ROWID;

CREATE TABLE answers (
    idempotency_key TEXT PRIMARY KEY,
    fingerprint BLOB NOT NULL,
    outcomes TEXT NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO ledger VALUES (1, '/ledgers/earlier', 1, 0);
INSERT INTO events VALUES (1, 'alice', 1, '{"specversion":"1.0","id":"event-1","source":"/ledgers/earlier","type":"account-created","subject":"alice","time":"2026-01-01T00:00:01.000000Z","datacontenttype":"application/json","sequence":"00000000000000000001","accountversion":1,"commandid":"command-1","data":{"name":"Alice"}}');
INSERT INTO streams VALUES ('alice', 1, 'Alice', 0);
