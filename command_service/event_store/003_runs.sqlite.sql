-- An event is no longer a row of its own, nor is a stream written with every event: both were most of what a command cost
-- (docs/performance.md).

-- The log: runs of consecutive events, found by the position of their last one. In `events` each has a line: the
-- CloudEvent as it is published, byte for byte. In `trails` too: the positions of the account's events 1 version
-- before it and, when its version is a multiple of 32, of 1024 and so on, so many versions before it; 0 for none.
CREATE TABLE runs (
    position INTEGER PRIMARY KEY,
    trails TEXT NOT NULL,
    events TEXT NOT NULL
) STRICT;

-- What has a hole cannot be cut into runs.
CREATE TABLE whole (one INTEGER CONSTRAINT "events without a hole up to the head" CHECK (one));

INSERT INTO whole
SELECT (SELECT count(*) FROM events) = position
    AND coalesce((SELECT min(position) FROM events), 1) = 1
    AND coalesce((SELECT max(position) FROM events), 0) = position
FROM ledger;

DROP TABLE whole;

CREATE TABLE chain AS
SELECT position, account_id, version,
    coalesce(lag(position) OVER stream, 0)
    || CASE WHEN version % 32 = 0 THEN coalesce(',' || lag(position, 32) OVER stream, '') ELSE '' END
    || CASE WHEN version % 1024 = 0 THEN coalesce(',' || lag(position, 1024) OVER stream, '') ELSE '' END
    || CASE WHEN version % 32768 = 0 THEN coalesce(',' || lag(position, 32768) OVER stream, '') ELSE '' END
    AS trail
FROM (
    SELECT position, json_extract(event, '$.subject') AS account_id, json_extract(event, '$.accountversion') AS version
    FROM events
)
WINDOW stream AS (PARTITION BY account_id ORDER BY version);

CREATE INDEX chain_by_position ON chain (position);

CREATE INDEX chain_by_account ON chain (account_id, version);

INSERT INTO runs
SELECT position, trails, run FROM (
    SELECT position,
        group_concat(trail, char(10)) OVER run AS trails,
        group_concat(event, char(10)) OVER run AS run
    FROM events JOIN chain USING (position)
    WINDOW run AS (PARTITION BY (position - 1) / 32 ORDER BY position)
)
WHERE position % 32 = 0 OR position = (SELECT max(position) FROM events);

-- Where each account's stream ends, up to an event at `streams_position` of the log or later; what is missing is in the
-- log. `position` is of the stream's last event; `marks` are those of the last one whose version is a multiple of 32, of
-- the last one whose version is a multiple of 1024, and so on.
CREATE TABLE ends (
    account_id TEXT PRIMARY KEY,
    version INTEGER NOT NULL,
    name TEXT,
    balance INTEGER CHECK (balance >= 0),
    position INTEGER NOT NULL,
    marks TEXT NOT NULL,
    CHECK ((name IS NULL) = (balance IS NULL))
) STRICT, WITHOUT ROWID;

INSERT INTO ends
SELECT account_id, version, name, balance, (SELECT position FROM chain WHERE (account_id, version) = (s.account_id, s.version)),
    coalesce((SELECT position FROM chain WHERE (account_id, version) = (s.account_id, s.version / 32 * 32)), '')
    || coalesce(',' || (SELECT position FROM chain WHERE (account_id, version) = (s.account_id, s.version / 1024 * 1024)), '')
    || coalesce(',' || (SELECT position FROM chain WHERE (account_id, version) = (s.account_id, s.version / 32768 * 32768)), '')
FROM streams AS s;

DROP TABLE chain;
DROP TABLE events;
DROP TABLE stream_parts;
DROP TABLE streams;
ALTER TABLE ends RENAME TO streams;

ALTER TABLE ledger ADD COLUMN streams_position INTEGER NOT NULL DEFAULT 0;

UPDATE ledger SET streams_position = position;
