DROP TABLE IF EXISTS history;
DROP TABLE IF EXISTS history_accounts;
DROP TABLE IF EXISTS history_reserves;
DROP TABLE IF EXISTS history_chain;
DROP INDEX IF EXISTS history_holds_by_placed;
DROP INDEX IF EXISTS history_holds_by_ended;
DROP TABLE IF EXISTS history_holds;
