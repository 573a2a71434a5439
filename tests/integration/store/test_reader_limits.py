"""What a reader with a login of its own can do to others: every statement as the role itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors, sql
from structlog.testing import capture_logs

from deploy.local.postgres import EmbeddedPostgres
from include.store import migrate as migrate_module
from include.store.migrate import (
    ACCOUNTS,
    DBT,
    JOBS,
    LOCK_KEY,
    READER,
    ROLES,
    SERVING,
    STREAMER,
    migrate,
)
from include.store.migrations.scripts import script_text
from include.store.postgres.pools import connect
from tests.integration.store.test_migrate import own_server

Connection = psycopg.Connection[Any]
ROOT = Path(__file__).parents[3]


@pytest.fixture
def urls(postgres: EmbeddedPostgres, empty_database_url: str) -> dict[str, str]:
    """URLs of a migrated database for each role."""
    name = empty_database_url.rsplit("/", 1)[1]
    found = {role: postgres.url(name, user=role, password=f"of {role}") for role in ROLES}
    migrate(empty_database_url, role_urls=found)
    return found


@pytest.fixture
def reader(urls: dict[str, str]) -> Iterator[Connection]:
    with connect(urls[READER], application_name="test") as connection:
        yield connection


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT lo_create(0)",
        "SELECT lo_creat(-1)",
        "SELECT lo_from_bytea(0, 'x')",
        "SELECT lo_open(1, 131072)",
        "SELECT lo_put(1, 0, 'x')",
        "SELECT lo_import('/etc/passwd')",
        "SELECT pg_advisory_lock(1)",
        "SELECT pg_advisory_lock(1, 2)",
        "SELECT pg_advisory_lock_shared(1)",
        "SELECT pg_advisory_xact_lock(1)",
        "SELECT pg_advisory_xact_lock_shared(1)",
        "SELECT pg_try_advisory_lock(1)",
        "SELECT pg_try_advisory_xact_lock(1, 2)",
        "SELECT pg_try_advisory_xact_lock_shared(1)",
        "SELECT pg_logical_emit_message(false, 'x', repeat('x', 1000))",
        "SELECT pg_logical_emit_message(true, 'x', '\\x00'::bytea)",
        "SELECT pg_export_snapshot()",
        "SET temp_file_limit = '-1'",
        "CREATE TEMPORARY TABLE mine (x int)",
        "LOCK TABLE ops.alembic_version IN ROW EXCLUSIVE MODE",
        "LOCK TABLE market.candles_1m IN ACCESS EXCLUSIVE MODE",
        "SELECT * FROM accounts.users",
        "SELECT * FROM accounts.logins",
        "ALTER ROLE candelabra_reader CONNECTION LIMIT -1",
    ],
)
def test_reader_may_not(reader: Connection, statement: str) -> None:
    with pytest.raises(errors.InsufficientPrivilege), reader.transaction():
        reader.execute(statement)


def test_reader_cannot_make_large_objects_through_the_protocol(reader: Connection) -> None:
    """libpq's ``lo_*`` call functions by number, without a statement."""
    row = reader.execute("SELECT 'lo_creat(integer)'::regprocedure::oid").fetchone()
    assert row is not None
    has = reader.execute("SELECT has_function_privilege(%s, 'EXECUTE')", row).fetchone()
    assert has == (False,)


def test_reader_has_timeouts_and_a_limit_of_temporary_files(reader: Connection) -> None:
    names = ("statement_timeout", "idle_in_transaction_session_timeout", "temp_file_limit")
    found = [reader.execute("SELECT current_setting(%s)", (name,)).fetchone() for name in names]
    assert found == [("10min",), ("1min",), ("4GB",)]


def test_documented_statement_ends_transactions_of_readers_who_lifted_the_timeouts(
    urls: dict[str, str], empty_database_url: str
) -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    (statement,) = re.findall(r"```sql\n(SELECT pg_terminate_backend.*?;)\n```", text, re.DOTALL)
    with ExitStack() as stack:
        reader, serving, streamer = (
            stack.enter_context(
                connect(urls[role], application_name="test", autocommit=role == SERVING)
            )
            for role in (READER, SERVING, STREAMER)
        )
        for one in (reader, serving, streamer):
            one.execute("SET statement_timeout = 0")
            one.execute("SELECT 1")
        with connect(empty_database_url, application_name="test") as owner:
            owner.execute(statement)  # nothing is that old
            reader.execute("SELECT 1")
            owner.execute(statement.replace("15 minutes", "0 minutes"))
        with pytest.raises(errors.AdminShutdown):
            reader.execute("SELECT 1")
        for one in (serving, streamer):
            one.execute("SELECT 1")


def test_readers_leave_connections_to_the_others(
    urls: dict[str, str], empty_database_url: str
) -> None:
    with connect(empty_database_url, application_name="test") as owner:
        limit = "SELECT rolconnlimit FROM pg_roles WHERE rolname = 'candelabra_reader'"
        assert owner.execute(limit).fetchone() == (40,)
        owner.execute("ALTER ROLE candelabra_reader CONNECTION LIMIT 2")
        try:
            with ExitStack() as stack:
                for _ in range(2):
                    stack.enter_context(connect(urls[READER], application_name="test"))
                with pytest.raises(Exception, match="too many connections for role"):
                    connect(urls[READER], application_name="test")
                stack.enter_context(connect(urls[STREAMER], application_name="test"))
            migrate(empty_database_url)  # keeps what an administrator chose
            assert owner.execute(limit).fetchone() == (2,)
        finally:
            owner.execute("ALTER ROLE candelabra_reader CONNECTION LIMIT 40")


def test_reader_who_changes_its_own_login_does_not_shut_out_serving(
    urls: dict[str, str], empty_database_url: str, reader: Connection
) -> None:
    """PostgreSQL lets every login change its password and settings."""
    name = sql.Identifier(empty_database_url.rsplit("/", 1)[1])
    reader.execute("ALTER ROLE candelabra_reader PASSWORD 'mine'")
    setting = "ALTER ROLE candelabra_reader IN DATABASE {} SET {} = '1ms'"
    for timeout in ("statement_timeout", "lock_timeout"):
        reader.execute(sql.SQL(setting).format(name, sql.Identifier(timeout)))
    for statement in ("PASSWORD 'mine'", "SET statement_timeout = '1ms'"):
        with pytest.raises(errors.InsufficientPrivilege):
            reader.execute("ALTER ROLE candelabra_serving " + statement)

    with connect(urls[SERVING], application_name="test") as serving:
        assert serving.execute("SHOW statement_timeout").fetchone() == ("10min",)
        assert serving.execute("SHOW temp_file_limit").fetchone() == ("4GB",)
        assert serving.execute("SELECT count(*) FROM market.candles_1m").fetchone() == (0,)
        with pytest.raises(errors.InsufficientPrivilege):
            serving.execute("DELETE FROM market.candles_1m")


@pytest.mark.parametrize("role", [STREAMER, JOBS, DBT])
def test_writers_have_their_advisory_locks(urls: dict[str, str], role: str) -> None:
    with connect(urls[role], application_name="test") as connection:
        connection.execute("SELECT pg_advisory_xact_lock(1), pg_advisory_xact_lock_shared(2)")
        connection.execute("SELECT pg_try_advisory_lock(3), pg_advisory_unlock(3)")


def test_nobody_else_blocks_a_migration(
    urls: dict[str, str], empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither by an advisory lock, where the server lets readers take them, nor by a table."""
    monkeypatch.setattr(migrate_module, "LOCK_TIMEOUT_S", 1)
    with (
        connect(urls[JOBS], application_name="test") as writer,
        connect(urls[READER], application_name="test") as reader,
    ):
        writer.execute("SELECT pg_advisory_lock(%s)", (LOCK_KEY,))
        reader.execute("BEGIN")
        reader.execute("LOCK TABLE ops.alembic_version IN ACCESS SHARE MODE")
        reader.execute("SELECT * FROM ops.alembic_version")
        migrate(empty_database_url)


def test_migrations_exclude_each_other_without_an_advisory_lock(
    urls: dict[str, str], empty_database_url: str
) -> None:
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(migrate, [empty_database_url] * 3, timeout=60))


def test_reader_reads(reader: Connection) -> None:
    for relation in ("market.candles_1m", "market.live_candles", "ops.gaps", "market.instruments"):
        reader.execute(sql.SQL("SELECT * FROM {} LIMIT 1").format(sql.SQL(relation)))


@pytest.mark.parametrize("role", [READER, SERVING, ACCOUNTS])
def test_role_cannot_connect_to_other_databases(
    postgres: EmbeddedPostgres, urls: dict[str, str], role: str
) -> None:
    other = postgres.create_database("others_data")
    try:
        postgres.close_to_others("others_data")
        url = urls[role].rsplit("/", 1)[0] + "/others_data"
        with pytest.raises(Exception, match="permission denied for database"):
            connect(url, application_name="test")
        with connect(other, application_name="test") as owner:
            owner.execute("SELECT 1")
    finally:
        postgres.drop_database("others_data")


def test_owner_without_superuser_passes_locks_on_once_a_superuser_has_restricted_them() -> None:
    """As in Docker Compose, where the cluster's superuser runs the script before the migration."""
    with own_server() as server:
        with connect(server.url("postgres"), application_name="test") as superuser:
            superuser.execute("CREATE ROLE plain LOGIN CREATEROLE PASSWORD 'secret'")
            superuser.execute("CREATE DATABASE market_data OWNER plain")
        url = server.url("market_data", user="plain", password="secret")
        urls = {role: server.url("market_data", user=role, password=f"of {role}") for role in ROLES}
        lock = "SELECT pg_advisory_xact_lock(1)"

        with capture_logs() as logs:
            migrate(url, role_urls=urls)
        assert "readers_not_restricted" in {one["event"] for one in logs}
        with connect(urls[READER], application_name="test") as reader:
            reader.execute(lock)
            assert reader.execute("SHOW statement_timeout").fetchone() == ("10min",)

        with connect(server.url("market_data"), application_name="test") as superuser:
            for _ in range(2):
                superuser.execute(script_text("repeatable/administrator.sql"))
        with capture_logs() as logs:
            migrate(url, role_urls=urls)
        assert "readers_not_restricted" not in {one["event"] for one in logs}
        with connect(urls[READER], application_name="test") as reader:
            assert reader.execute("SHOW temp_file_limit").fetchone() == ("4GB",)
            message = "SELECT pg_logical_emit_message(false, 'x', 'x')"
            for statement in (lock, "SELECT lo_create(0)", message):
                with pytest.raises(errors.InsufficientPrivilege):
                    reader.execute(statement)

        with connect(server.url("market_data"), application_name="test") as superuser:
            # As earlier versions of the script left it.
            superuser.execute("GRANT EXECUTE ON FUNCTION pg_export_snapshot() TO PUBLIC")
        with capture_logs() as logs:
            migrate(url, role_urls=urls)
        assert "readers_not_restricted" in {one["event"] for one in logs}
        for role in (STREAMER, JOBS, DBT):
            with connect(urls[role], application_name="test") as writer:
                writer.execute(lock)
