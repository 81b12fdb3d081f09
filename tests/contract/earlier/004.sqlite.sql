-- SQLite, number 4 of the earlier states of this program, with one event; number 3 had the same tables.
CREATE TABLE ledger (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    source TEXT NOT NULL,
    position INTEGER NOT NULL,
    published INTEGER NOT NULL,
    streams_position INTEGER NOT NULL
) STRICT;

CREATE TABLE runs (
    position INTEGER PRIMARY KEY,
    trails TEXT NOT NULL,
    events TEXT NOT NULL
) STRICT;

CREATE TABLE streams (
    account_id TEXT PRIMARY KEY,
    version INTEGER NOT NULL,
    name TEXT,
    balance INTEGER CHECK (balance >= 0),
    position INTEGER NOT NULL,
    marks TEXT NOT NULL,
    CHECK ((name IS NULL) = (balance IS NULL))
) STRICT, WITHOUT ROWID;

CREATE TABLE answers (
    idempotency_key TEXT PRIMARY KEY,
    fingerprint BLOB NOT NULL,
    outcomes TEXT NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO ledger VALUES (1, '/ledgers/earlier', 1, 0, 1);
INSERT INTO runs VALUES (1, '0', '{"specversion":"1.0","id":"event-1","source":"/ledgers/earlier","type":"account-created","subject":"alice","time":"2026-01-01T00:00:01.000000Z","datacontenttype":"application/json","sequence":"00000000000000000001","accountversion":1,"commandid":"command-1","data":{"name":"Alice"}}');
INSERT INTO streams VALUES ('alice', 1, 'Alice', 0, 1, '');
