-- Before the functions, which come before the tables.
CREATE SCHEMA IF NOT EXISTS market;
CREATE SCHEMA IF NOT EXISTS ops;
CREATE SCHEMA IF NOT EXISTS accounts;
COMMENT ON SCHEMA accounts IS
'Users of what is served, their sessions, tokens and watchlists. Nothing secret is kept: hashes alone.';
