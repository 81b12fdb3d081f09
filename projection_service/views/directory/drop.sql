-- They may be gone with the accounts.
DROP INDEX IF EXISTS directory_by_name;
DROP INDEX IF EXISTS directory_by_balance;
DROP INDEX IF EXISTS directory_by_last_updated;
DROP INDEX IF EXISTS directory_status_by_id;
DROP INDEX IF EXISTS directory_status_by_name;
DROP INDEX IF EXISTS directory_status_by_balance;
DROP INDEX IF EXISTS directory_status_by_last_updated;
