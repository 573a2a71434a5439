-- Before the functions, which come before the tables.
CREATE SCHEMA IF NOT EXISTS market;
CREATE SCHEMA IF NOT EXISTS ops;
CREATE SCHEMA IF NOT EXISTS accounts;
COMMENT ON SCHEMA market IS
'Candles, instruments and raw trades, written by the streamer and the jobs.';
COMMENT ON SCHEMA ops IS
'Ledgers: what was loaded, missed, compared and checked; the change log that the marts read.';
COMMENT ON SCHEMA accounts IS
'Users of the served data, with sessions, tokens and watchlists. Secrets are stored as hashes only.';
