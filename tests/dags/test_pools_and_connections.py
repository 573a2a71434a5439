"""`candelabra migrate` sets up an Airflow, and says so; without one it says why not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from include.config import Settings

ROOT = Path(__file__).parents[2]
FERNET_KEY = "c2l4dGVlbiBieXRlcyBvZiBzZWNyZXQga2V5ISEhISE="
PASSWORD = "s3cret-of-the-reader"


@pytest.fixture(scope="module")
def airflow_variables(tmp_path_factory, postgres):
    """An Airflow of the user's, its metadata migrated once."""
    home = tmp_path_factory.mktemp("airflow-of-yours")
    url = postgres.create_database("own_airflow").replace("postgresql://", "postgresql+psycopg://")
    variables = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__FERNET_KEY": FERNET_KEY,
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url,
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": url,
        "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    }
    yield variables
    postgres.drop_database("own_airflow")


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
            timeout=120,
            check=False,
        )

    return run


@pytest.fixture(scope="module")
def not_migrated(run, postgres, _template):
    """What is said before Airflow's own migration; then the metadata are migrated."""
    url = postgres.create_database("own_candles", template=_template)
    said = run("-m", "cli", "migrate", DATABASE_URL=url)
    done = run("-m", "airflow", "db", "migrate")
    assert done.returncode == 0, done.stderr
    yield said
    postgres.drop_database("own_candles")


@pytest.fixture
def database(not_migrated, postgres) -> str:
    return postgres.url("own_candles")


def variables_of(url: str, password: str) -> dict[str, str]:
    reader = url.replace(url.split("://")[1].split("@")[0], f"candelabra_reader:{password}")
    return {"DATABASE_URL": url, "READER_DATABASE_URL": reader}


def test_an_airflow_without_tables_is_told_to_migrate_first(not_migrated):
    assert not_migrated.returncode == 1
    assert "is up to date" in not_migrated.stdout
    assert "run `airflow db migrate` before" in not_migrated.stderr
    assert "Traceback" not in not_migrated.stderr


def test_pools_and_connections_are_made_once_and_then_kept(run, database, airflow_variables):
    variables = variables_of(database, PASSWORD)
    first = run("-m", "cli", "migrate", **variables)
    again = run("-m", "cli", "migrate", **variables)
    other = run("-m", "cli", "migrate", **variables_of(database, "an0ther"))

    assert (first.returncode, again.returncode, other.returncode) == (0, 0, 0), first.stderr
    pools = json.loads((ROOT / "dags" / "support" / "pools.json").read_text())
    for name in pools:
        assert f"{name} created" in first.stdout
        assert f"{name} unchanged" in again.stdout
    assert "candelabra_db created, candelabra_jobs created" in first.stdout
    assert "candelabra_db unchanged, candelabra_jobs unchanged" in again.stdout
    assert "candelabra_db updated, candelabra_jobs unchanged" in other.stdout
    assert PASSWORD not in "".join([first.stdout, first.stderr, again.stdout, again.stderr])

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
    assert all("an0ther" not in str(row[3]) for row in rows)
    assert {name: slots[name] for name in pools} == {
        name: pool["slots"] for name, pool in pools.items()
    }


def test_an_operator_reads_candles_by_the_connection(run, database):
    done = run("-m", "cli", "migrate", **variables_of(database, PASSWORD))
    assert done.returncode == 0, done.stderr
    code = """
from airflow.models.connection import Connection
from airflow.providers.postgres.hooks.postgres import PostgresHook
from airflow.utils.session import create_session
from sqlalchemy import select

with create_session() as session:
    known = session.scalar(select(Connection).where(Connection.conn_id == "candelabra_db"))
    print(PostgresHook(connection=known).get_first("SELECT current_user::text"))
"""
    read = run("-c", code)
    assert "candelabra_reader" in read.stdout, read.stderr


def test_without_a_key_no_password_is_stored(run, database):
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


def test_without_an_airflow_the_reason_is_said(run, database):
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
