\set account random(1, 1000)
BEGIN;
UPDATE accounts SET balance = balance + 100, version = version + 1 WHERE id = :account;
INSERT INTO events (account, type, data)
VALUES (:account, 'amount-deposited', '{"amount": 100, "description": "Found sunken treasure"}');
COMMIT;
