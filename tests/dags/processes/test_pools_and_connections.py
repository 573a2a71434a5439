"""`candelabra migrate` sets the pools and connections of the user's Airflow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from deploy.local.airflow_environment import sqlalchemy_url
from include.config import Settings

ROOT = Path(__file__).parents[3]
FERNET_KEY = "c2l4dGVlbiBieXRlcyBvZiBzZWNyZXQga2V5ISEhISE="
PASSWORD = "s3cret-of-the-reader"


@pytest.fixture(scope="module")
def airflow_variables(tmp_path_factory, postgres, metadata_template):
    """Variables of a user's Airflow with a migrated metadata database."""
    url = postgres.create_database("own_airflow", template=metadata_template)
    yield variables_of_airflow(tmp_path_factory.mktemp("own-airflow"), url)
    postgres.drop_database("own_airflow")


def variables_of_airflow(home: Path, metadata_url: str) -> dict[str, str]:
    return {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__FERNET_KEY": FERNET_KEY,
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": sqlalchemy_url(metadata_url),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": sqlalchemy_url(metadata_url),
        "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    }


@pytest.fixture(scope="module")
def run(airflow_variables):
    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        names = {name.upper() for name in Settings.model_fields}
        environment = {
            name: value
            for name, value in os.environ.items()
            if name not in names and not name.startswith("AIRFLOW")
        }
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=environment | airflow_variables | variables,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run


@pytest.fixture(scope="module")
def database(postgres, _template):
    yield postgres.create_database("own_candles", template=_template)
    postgres.drop_database("own_candles")


def variables_of(url: str, password: str) -> dict[str, str]:
    reader = url.replace(url.split("://")[1].split("@")[0], f"candelabra_reader:{password}")
    return {"DATABASE_URL": url, "READER_DATABASE_URL": reader}


@pytest.mark.long
def test_airflow_without_tables_needs_its_own_migration_first(
    run, database, empty_database_url, tmp_path
):
    unmigrated = variables_of_airflow(tmp_path, empty_database_url)
    done = run("-m", "cli", "migrate", DATABASE_URL=database, **unmigrated)
    assert done.returncode == 1
    assert "is up to date" in done.stdout
    assert "run `airflow db migrate` first" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.long
def test_pools_and_connections_are_created_then_updated_and_usable(
    run, database, airflow_variables
):
    first = run("-m", "cli", "migrate", **variables_of(database, "an0ther"))
    again = run("-m", "cli", "migrate", **variables_of(database, PASSWORD))

    assert (first.returncode, again.returncode) == (0, 0), first.stderr + again.stderr
    pools = json.loads((ROOT / "dags" / "support" / "pools.json").read_text())
    for name in pools:
        assert f"{name} created" in first.stdout
        assert f"{name} unchanged" in again.stdout
    assert "candelabra_db created, candelabra_jobs created" in first.stdout
    assert "candelabra_db updated, candelabra_jobs unchanged" in again.stdout
    assert PASSWORD not in again.stdout + again.stderr

    metadata = airflow_variables["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]
    with psycopg.connect(metadata.replace("+psycopg", "")) as connection:
        rows = connection.execute(
            "SELECT conn_id, conn_type, is_encrypted, password FROM connection ORDER BY conn_id"
        ).fetchall()
        slots = dict(connection.execute("SELECT pool, slots FROM slot_pool").fetchall())
    assert [row[:3] for row in rows] == [
        ("candelabra_db", "postgres", True),
        ("candelabra_jobs", "postgres", True),
    ]
    assert all(PASSWORD not in str(row[3]) for row in rows)
    assert {name: slots[name] for name in pools} == {
        name: pool["slots"] for name, pool in pools.items()
    }

    read = run("-c", READ_BY_CONNECTION)
    assert "candelabra_reader" in read.stdout, read.stderr


READ_BY_CONNECTION = """
from airflow.models.connection import Connection
from airflow.providers.postgres.hooks.postgres import PostgresHook
from airflow.utils.session import create_session
from sqlalchemy import select

with create_session() as session:
    known = session.scalar(select(Connection).where(Connection.conn_id == "candelabra_db"))
    print(PostgresHook(connection=known).get_first("SELECT current_user::text"))
"""


@pytest.mark.long
def test_no_password_is_stored_without_a_fernet_key(run, database):
    done = run(
        "-m",
        "cli",
        "migrate",
        AIRFLOW__CORE__FERNET_KEY="",
        **variables_of(database, PASSWORD),
    )
    assert done.returncode == 0, done.stderr
    assert "Airflow's pools:" in done.stdout
    assert "connections: skipped, since AIRFLOW__CORE__FERNET_KEY is not set" in done.stdout


def test_missing_airflow_is_reported(run, database):
    done = run(
        "-m",
        "cli",
        "migrate",
        DATABASE_URL=database,
        AIRFLOW_HOME="",
        AIRFLOW__DATABASE__SQL_ALCHEMY_CONN="",
    )
    assert done.returncode == 0, done.stderr
    assert "skipped, since neither AIRFLOW_HOME nor" in done.stdout
