DROP TABLE history;
DROP TABLE history_accounts;
DROP TABLE history_reserves;
DROP TABLE history_chain;
