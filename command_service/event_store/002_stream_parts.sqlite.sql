-- An index on (account_id, version) cost every command of a commit a page of its own: most of its time
-- (docs/performance.md). An account's positions are now kept 32 together, in the order of its versions: the full
-- parts here, the positions after them in its stream. Account and version of an event are in the event itself.
CREATE TABLE stream_parts (
    account_id TEXT NOT NULL,
    part INTEGER NOT NULL,
    positions TEXT NOT NULL,
    PRIMARY KEY (account_id, part)
) STRICT, WITHOUT ROWID;

INSERT INTO stream_parts
SELECT account_id, (version - 1) / 32, group_concat(position) FROM events GROUP BY 1, 2 HAVING count(*) = 32;

ALTER TABLE streams ADD COLUMN positions TEXT NOT NULL DEFAULT '';

UPDATE streams SET positions = coalesce(
    (
        SELECT group_concat(position) FROM events
        WHERE events.account_id = streams.account_id AND events.version > streams.version / 32 * 32
    ),
    ''
);

CREATE TABLE log (
    position INTEGER PRIMARY KEY,
    event TEXT NOT NULL
) STRICT;

INSERT INTO log SELECT position, event FROM events ORDER BY position;

DROP TABLE events;

ALTER TABLE log RENAME TO events;
