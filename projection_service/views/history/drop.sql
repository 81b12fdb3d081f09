DROP TABLE IF EXISTS history;
DROP TABLE IF EXISTS history_accounts;
DROP TABLE IF EXISTS history_reserves;
DROP TABLE IF EXISTS history_chain;
