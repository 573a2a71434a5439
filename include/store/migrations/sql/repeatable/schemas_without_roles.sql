-- Instead of grants.sql, if the roles do not exist: the owner's login does everything.
CREATE SCHEMA IF NOT EXISTS marts;
CREATE SCHEMA IF NOT EXISTS marts_audit;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA market, ops, accounts FROM PUBLIC;
