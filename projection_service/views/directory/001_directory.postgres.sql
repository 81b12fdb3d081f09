-- Only indexes of the view accounts' table: its rows in each order in which they are listed, which is that of the bytes,
-- whatever the database's own is.
CREATE INDEX directory_by_name ON accounts (name COLLATE "C", id);
CREATE INDEX directory_by_balance ON accounts (asset, balance, id);
CREATE INDEX directory_by_last_updated ON accounts (last_updated COLLATE "C", id);

-- Accounts that are frozen or closed: few among many, as a rule.
CREATE INDEX directory_status_by_id ON accounts (status, id) WHERE status <> 'open';
CREATE INDEX directory_status_by_name ON accounts (status, name COLLATE "C", id) WHERE status <> 'open';
CREATE INDEX directory_status_by_balance ON accounts (status, asset, balance, id) WHERE status <> 'open';
CREATE INDEX directory_status_by_last_updated ON accounts (status, last_updated COLLATE "C", id) WHERE status <> 'open';
