"""Connections, and errors that say whether a retry helps."""

from __future__ import annotations

import socket

import psycopg
import pytest
from psycopg import sql

from deploy.local.postgres import EmbeddedPostgres
from include.errors import PermanentError, TransientError
from include.store.postgres.pools import connect, connect_async, is_about_the_schema, translated

SECRET = "s3cret-and-%40-more"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_session_runs_in_utc_under_its_name(database_url: str) -> None:
    with connect(database_url, application_name="candelabra-test") as connection:
        row = connection.execute(
            "SELECT current_setting('TimeZone'), current_setting('application_name')"
        ).fetchone()

    assert row == ("UTC", "candelabra-test")


async def test_async_session_runs_in_utc(database_url: str) -> None:
    connection = await connect_async(database_url, application_name="candelabra-test")
    async with connection:
        row = await (await connection.execute("SELECT current_setting('TimeZone')")).fetchone()

    assert row == ("UTC",)


def test_unavailable_server_is_transient_and_named() -> None:
    port = free_port()

    with pytest.raises(TransientError) as caught:
        connect(f"postgresql://me:{SECRET}@127.0.0.1:{port}/candelabra", application_name="test")

    assert f"127.0.0.1:{port}/candelabra" in str(caught.value)
    assert "s3cret" not in str(caught.value)


async def test_async_version_raises_the_same_error() -> None:
    port = free_port()

    with pytest.raises(TransientError, match=f"127.0.0.1:{port}/candelabra"):
        await connect_async(f"postgresql://127.0.0.1:{port}/candelabra", application_name="test")


def test_wrong_password_is_permanent(postgres: EmbeddedPostgres) -> None:
    url = postgres.url("postgres", user="candelabra", password="wr0ng")

    with pytest.raises(PermanentError, match="refuses the login") as caught:
        connect(url, application_name="test")
    assert "wr0ng" not in str(caught.value)


def test_missing_database_is_permanent(postgres: EmbeddedPostgres) -> None:
    with pytest.raises(PermanentError, match="nowhere"):
        connect(postgres.url("nowhere"), application_name="test")


def test_lost_connection_is_transient(database_url: str) -> None:
    with connect(database_url, application_name="victim") as connection:
        with connect(database_url, application_name="test") as other:
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'victim'"
            )
        with pytest.raises(TransientError) as caught, translated(connection):
            connection.execute("SELECT 1")

    assert database_url.rsplit("@", 1)[1] in str(caught.value)


def test_wrong_statement_is_permanent(database_url: str) -> None:
    with (
        connect(database_url, application_name="test") as connection,
        pytest.raises(PermanentError, match="division by zero"),
        translated(connection),
    ):
        connection.execute("SELECT 1/0")


RAISE = "DO $$ BEGIN RAISE 'no' USING ERRCODE = '{}'; END $$"


@pytest.mark.parametrize(
    ("sqlstate", "what"),
    [
        ("25006", "read-only: it is no primary any more"),
        ("25P03", "idle in transaction"),
        ("25P04", "the transaction took too long"),
        ("40001", "serialization"),
        ("40P01", "deadlock"),
        ("53100", "disk full"),
        ("53200", "out of memory"),
        ("53300", "too many connections"),
        ("55P03", "lock not available"),
        ("57014", "the statement took too long"),
        ("57P01", "shut down"),
        ("57P02", "crashed"),
        ("57P03", "starting up"),
        ("58030", "input or output failed"),
    ],
)
def test_temporary_conditions_are_transient(database_url: str, sqlstate: str, what: str) -> None:
    with (
        connect(database_url, application_name="test") as connection,
        pytest.raises(TransientError),
        translated(connection),
    ):
        connection.execute(RAISE.format(sqlstate))


@pytest.mark.parametrize(
    ("statement", "is_schema"),
    [
        ("SELECT * FROM market.nowhere", True),
        ("SET ROLE candelabra_reader; DELETE FROM market.candles_1m", True),
        (RAISE.format("XX000"), True),
        (RAISE.format("0A000"), True),
        (RAISE.format("23514"), False),  # a constraint
        (RAISE.format("22003"), False),  # a number out of range
    ],
)
def test_server_faults_are_distinguished_from_wrong_values(
    database_url: str, statement: str, is_schema: bool
) -> None:
    with (
        connect(database_url, application_name="test") as connection,
        pytest.raises(PermanentError) as caught,
        translated(connection),
    ):
        connection.execute(statement)

    assert is_about_the_schema(caught.value) is is_schema


def test_of_two_servers_the_primary_is_found(postgres: EmbeddedPostgres, database_url: str) -> None:
    here = f"127.0.0.1:{postgres.port}"
    several = database_url.replace(here, f"127.0.0.1:{free_port()},{here}")

    with connect(several, application_name="test") as connection:
        assert connection.info.port == postgres.port
        name = connection.info.dbname
        with connect(postgres.url("postgres"), application_name="test") as admin:
            admin.execute(
                sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(
                    sql.Identifier(name)
                )
            )
    with pytest.raises(TransientError, match="read-only"):
        connect(several, application_name="test")


def test_errors_of_other_kinds_pass_through() -> None:
    with pytest.raises(KeyError), translated("postgresql://localhost/x"):
        raise KeyError

    with pytest.raises(TransientError), translated("postgresql://localhost/x"):
        raise psycopg.OperationalError
