"""Database addresses, and the parts of them that may be shown."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import errors

from include.errors import PermanentError, TransientError
from include.store.postgres.pools import connection_arguments, is_of_database, redact, translated


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:secret@db:5433/candles", "postgresql://me@db:5433/candles"),
        ("postgresql://me:secret@db/candles?sslpassword=secret", "postgresql://me@db/candles"),
        ("postgres://db/candles", "postgresql://db/candles"),
        ("postgresql://m%40e:secret@db/candles", "postgresql://m%40e@db/candles"),
        ("postgresql://me:secret@db:notaport/candles", "<malformed database URL>"),
        (
            "postgresql://me:secret@one:5432,two,[::1]:5434/candles?sslpassword=secret",
            "postgresql://me@one:5432,two,[::1]:5434/candles",
        ),
        ("postgresql://me:secret@one:5432,two:secret/candles", "<malformed database URL>"),
        ("host=db password=secret", "<malformed database URL>"),
    ],
)
def test_redacted_url_has_no_password(url: str, shown: str) -> None:
    assert redact(url) == shown
    assert "secret" not in redact(url)


@pytest.mark.parametrize(
    "url",
    [
        "host=db password=secret",
        "mysql://me:secret@db/candles",
        "postgresql://me:secret@[db/candles",
        "postgresql://me:sec%ZZret@db/candles",
        "postgresql://me:secret@db/candles?no_such_option=1",
        "",
    ],
)
def test_invalid_url_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(PermanentError, match="expected postgresql://") as caught:
        connection_arguments(url, application_name="test")

    assert "sec" not in str(caught.value).replace("expected postgresql://user:password", "")
    assert caught.value.__cause__ is None


def test_options_of_the_url_are_preserved_and_the_time_zone_added() -> None:
    arguments = connection_arguments(
        "postgresql://me@db/candles?options=-c%20statement_timeout%3D5000",
        application_name="test",
        timeout_s=3,
    )

    assert arguments["options"] == "-c statement_timeout=5000 -c TimeZone=UTC"
    assert (arguments["connect_timeout"], arguments["application_name"]) == (3, "test")


@pytest.mark.parametrize(
    ("url", "attributes"),
    [
        ("postgresql://me@one:5432,two:5433/candles", "read-write"),
        ("postgresql://me@one,two/candles?target_session_attrs=any", "any"),
        ("postgresql://me@one:5432/candles", None),
    ],
)
def test_several_hosts_select_the_writable_server(url: str, attributes: str | None) -> None:
    arguments = connection_arguments(url, application_name="test")

    assert arguments.get("target_session_attrs") == attributes


def test_unresponsive_server_times_out_in_half_a_minute() -> None:
    url = "postgresql://me@db/candles"

    assert connection_arguments(url, application_name="test")["tcp_user_timeout"] == 30_000
    chosen = connection_arguments(f"{url}?tcp_user_timeout=5000", application_name="test")
    assert chosen["tcp_user_timeout"] == "5000"


def failure(error: psycopg.Error) -> TransientError | PermanentError:
    """The error as a caller sees it."""
    try:
        with translated("postgresql://me@here:5432/candles"):
            raise error
    except (TransientError, PermanentError) as seen:
        return seen


@pytest.mark.parametrize(
    "error",
    [
        psycopg.OperationalError("connection refused"),
        errors.AdminShutdown("terminating connection"),
        errors.InsufficientPrivilege("permission denied for table"),
        errors.UndefinedTable("no such table"),
    ],
)
def test_database_failure_is_recognised(error: psycopg.Error) -> None:
    assert is_of_database(failure(error))


@pytest.mark.parametrize(
    "error",
    [
        failure(errors.NumericValueOutOfRange("too great")),
        failure(errors.CheckViolation("price")),
        TransientError("the exchange answers 503"),
    ],
)
def test_wrong_value_or_statement_is_no_database_failure(error: Exception) -> None:
    assert not is_of_database(error)
