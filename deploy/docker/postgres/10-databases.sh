#!/bin/bash
# Runs once, when the volume is empty: creates the databases and their owners. Migrations and
# Airflow have their own logins; only this container knows the superuser's password.
set -euo pipefail

psql --no-psqlrc -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres <<'SQL'
\getenv owner_password CANDELABRA_OWNER_PASSWORD
\getenv airflow_password AIRFLOW_DATABASE_PASSWORD
-- CREATEROLE: `candelabra migrate` creates the roles of streamer, jobs, dbt and readers.
CREATE ROLE candelabra LOGIN CREATEROLE PASSWORD :'owner_password';
CREATE DATABASE candelabra OWNER candelabra;
CREATE ROLE airflow LOGIN PASSWORD :'airflow_password';
CREATE DATABASE airflow OWNER airflow;
REVOKE ALL ON DATABASE airflow, postgres, template1 FROM PUBLIC;
SQL
# What only a superuser may restrict in the database that `candelabra migrate` fills.
psql --no-psqlrc -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname candelabra \
  --file "${ADMINISTRATOR_SQL:-/usr/share/candelabra/administrator.sql}"
