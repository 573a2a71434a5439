from __future__ import annotations

import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from structlog.testing import capture_logs

from deploy.local import postgres as module
from deploy.local.postgres import EmbeddedPostgres, psql_program
from include.errors import PermanentError, TransientError
from tests.ports import steady_port


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder that the server's user can access, with a space in its path."""
    with tempfile.TemporaryDirectory(prefix="candelabra test ") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder) / "pg"


def test_rows_survive_a_stop_and_a_crash(home: Path) -> None:
    server = EmbeddedPostgres(home)
    server.start()
    try:
        url = server.create_database("things")
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")
        server.stop()
        server.start()
        server.kill()
        server.start()
        with psycopg.connect(server.url("things")) as connection:
            assert connection.execute("SELECT count(*) FROM t").fetchone() == (1000,)
            version = connection.execute("SHOW server_version").fetchone()
            assert version is not None
            assert version[0].startswith("18.")
    finally:
        server.stop()
    assert server.pid is None


def test_server_of_a_killed_supervisor_is_replaced(home: Path) -> None:
    first = EmbeddedPostgres(home)
    first.start()
    second = EmbeddedPostgres(home)
    try:
        second.start()
        assert second.pid != first.pid
        with psycopg.connect(second.url("postgres")) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    finally:
        second.stop()
        first.stop()


def test_port_in_use_is_named(home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PermanentError, match=f"127.0.0.1:{port}: the port is in use"):
            EmbeddedPostgres(home, port=port).start()


def test_start_that_fails_for_another_reason_is_repeated_and_names_it(home: Path) -> None:
    server = EmbeddedPostgres(home, port=steady_port(), settings={"shared_buffers": "nonsense"})
    with (
        capture_logs() as logged,
        pytest.raises(TransientError, match=r'FATAL: .*"shared_buffers": "nonsense"'),
    ):
        server.start()
    assert [one["event"] for one in logged] == ["postgres_start_again"] * (
        module.START_ATTEMPTS - 1
    )


def test_server_listens_on_loopback_and_requires_a_password(home: Path) -> None:
    with EmbeddedPostgres(home) as server:
        with psycopg.connect(server.url("postgres")) as connection:
            assert connection.execute("SHOW listen_addresses").fetchone() == ("127.0.0.1",)
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(server.url("postgres", password="wrong"))
    secret = home / "password"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600


def test_cluster_of_another_version_is_rejected(home: Path) -> None:
    (home / "data").mkdir(parents=True)
    (home / "data" / "PG_VERSION").write_text("17\n")
    with pytest.raises(PermanentError, match="created by PostgreSQL 17, this is 18"):
        EmbeddedPostgres(home).start()


def test_incomplete_cluster_is_created_again(home: Path) -> None:
    (home / "data").mkdir(parents=True)
    (home / "data" / "base").write_text("half")
    with EmbeddedPostgres(home) as server:
        assert server.pid is not None


def test_remove_leaves_nothing(home: Path) -> None:
    server = EmbeddedPostgres(home)
    server.start()
    server.remove()
    assert server.pid is None
    assert not home.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root cannot run the server as itself")
def test_root_moves_a_cluster_out_of_a_closed_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    server = EmbeddedPostgres(tmp_path / "pg")
    place = module._outside_place((tmp_path / "pg").absolute())
    try:
        server.start()
        assert server.data_dir.is_relative_to(place)
    finally:
        server.remove()
        module.shutil.rmtree(place, ignore_errors=True)


def test_psql_exists() -> None:
    assert os.access(psql_program(), os.X_OK)


def test_owned_database_is_its_owners_alone_with_tables_that_were_there(home: Path) -> None:
    with EmbeddedPostgres(home) as server:
        with psycopg.connect(server.create_database("airflow"), autocommit=True) as superuser:
            superuser.execute("CREATE TYPE state AS ENUM ('on', 'off')")
            superuser.execute("CREATE TABLE runs (id serial PRIMARY KEY, state state)")
            superuser.execute("CREATE SEQUENCE numbers")
            superuser.execute("CREATE VIEW states AS SELECT state FROM runs")
            superuser.execute("CREATE ROLE other LOGIN PASSWORD 'of other'")
        for password in ("first", "second"):
            url = server.create_owned_database("airflow", owner="airflow", password=password)
        with psycopg.connect(url, autocommit=True) as owner:
            owner.execute("INSERT INTO runs (state) VALUES ('on')")
            owner.execute("ALTER TABLE runs ADD COLUMN note text")
            owner.execute("ALTER TYPE state ADD VALUE 'unknown'")
            owner.execute("DROP VIEW states")
            owner.execute("DROP SEQUENCE numbers")
            owner.execute("CREATE TABLE more (id int)")
            is_superuser = "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"
            assert owner.execute(is_superuser).fetchone() == (False,)
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            psycopg.connect(server.url("airflow", user="other", password="of other"))
