-- From one account to another, as in TPC-B. In the order of their ids, or clients would wait for each other in a circle.
\set payer random(1, 1000)
\set payee (:payer + random(0, 998)) % 1000 + 1
\set first least(:payer, :payee)
\set last greatest(:payer, :payee)
\set change case when :first = :payer then -1 else 1 end
BEGIN;
UPDATE accounts SET balance = balance + :change, version = version + 1 WHERE id = :first;
UPDATE accounts SET balance = balance - :change, version = version + 1 WHERE id = :last;
INSERT INTO events (account, type, data)
VALUES (:payer, 'money-transferred', '{"to": "account-1", "amount": 1, "description": "Found sunken treasure"}');
COMMIT;
