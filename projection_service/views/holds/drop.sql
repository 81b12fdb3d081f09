DROP TABLE holds;
DROP TABLE holds_accounts;
