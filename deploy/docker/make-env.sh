#!/bin/sh
# Writes .env for docker-compose.yml, with passwords and keys of its own; never over one that is
# there.   sh deploy/docker/make-env.sh [FILE]
set -eu
file=${1:-.env}
umask 077

# Hexadecimal: fits into URLs as it is. 64 characters are what the keys' signatures ask for.
word() { od -An -v -N32 -tx1 /dev/urandom | tr -d ' \n'; }
fernet_key() { head -c 32 /dev/urandom | base64 | tr '+/' '-_'; }

# noclobber: the shell itself refuses a file that exists.
set -C
if ! cat > "$file" <<ENV
# Made by deploy/docker/make-env.sh for docker-compose.yml. Keep a copy in a safe place: the
# database keeps the passwords, and AIRFLOW_FERNET_KEY decrypts what Airflow has stored.

# What to stream: BTCUSDT, ETHUSDT.P (USD-M), patterns such as *USDT. Every setting of
# docs/configuration.md may stand here.
SYMBOLS=BTCUSDT,ETHUSDT,BTCUSDT.P

# PostgreSQL: the superuser, the owner of the data, and one login for each part.
POSTGRES_PASSWORD=$(word)
CANDELABRA_OWNER_PASSWORD=$(word)
CANDELABRA_STREAMER_PASSWORD=$(word)
CANDELABRA_JOBS_PASSWORD=$(word)
CANDELABRA_DBT_PASSWORD=$(word)
CANDELABRA_READER_PASSWORD=$(word)
CANDELABRA_ACCOUNTS_PASSWORD=$(word)
AIRFLOW_DATABASE_PASSWORD=$(word)

# Airflow: the login of its UI (user admin), and its keys.
AIRFLOW_ADMIN_PASSWORD=$(word)
AIRFLOW_FERNET_KEY=$(fernet_key)
AIRFLOW_JWT_SECRET=$(word)
AIRFLOW_SECRET_KEY=$(word)
ENV
then
    echo "make-env: $file exists already; remove it first if its passwords are in use nowhere" >&2
    exit 1
fi
echo "$file written; the login of Airflow's UI is admin with AIRFLOW_ADMIN_PASSWORD of it"
