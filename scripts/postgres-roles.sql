-- One role for each service, and none of them may read the other's schema. For psql, as a superuser, in the database of
-- the bank, once; with the passwords in the environment. docker-compose.yml has it run when PostgreSQL first starts.
\set ON_ERROR_STOP on
\getenv command_password COMMAND_DATABASE_PASSWORD
\getenv projection_password PROJECTION_DATABASE_PASSWORD

CREATE ROLE command_service LOGIN PASSWORD :'command_password';
CREATE ROLE projection_service LOGIN PASSWORD :'projection_password';

REVOKE ALL ON DATABASE :"DBNAME" FROM PUBLIC;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
-- Each service makes its schemas by itself, and so owns them: `projection_NAME` for as many names as there will be.
GRANT CONNECT, CREATE ON DATABASE :"DBNAME" TO command_service, projection_service;
-- Made here, so that a projection service can't make it first.
CREATE SCHEMA ledger AUTHORIZATION command_service;
