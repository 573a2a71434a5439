"""What a snapshot has not seen of trades, whoever wrote or removed them and whenever that
committed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
import pytest

START = datetime(2026, 11, 18, 23, 58, 30, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
FIRST = START.replace(second=0)


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("SET timezone = 'UTC'")
        for day in (START, START + timedelta(days=1)):
            for table in ("agg_trades", "trades"):
                connection.execute(
                    "SELECT ops.ensure_partition(%s::regclass, %s)", (f"market.{table}", day)
                )
        yield connection


def write(connection: psycopg.Connection[Any], symbol: str, *moments: datetime) -> None:
    """One aggregate trade for each moment, by COPY."""
    columns = (
        "symbol, day, agg_trade_id, price, quantity, first_trade_id, last_trade_id, trade_time,"
        " is_buyer_maker"
    )
    with connection.cursor().copy(f"COPY market.agg_trades ({columns}) FROM STDIN") as copy:
        for at in moments:
            number = round(at.timestamp())
            copy.write_row((symbol, at.date(), number, 1, 1, number, number, at, True))


def snapshot(connection: psycopg.Connection[Any]) -> str:
    found = connection.execute("SELECT pg_current_snapshot()::text").fetchone()
    assert found is not None
    return str(found[0])


def changed(
    connection: psycopg.Connection[Any], seen: str
) -> dict[tuple[str, date], list[tuple[datetime, datetime]]]:
    """First minute and end of each stretch, by symbol and day."""
    rows = connection.execute("SELECT * FROM ops.changed_trades(%s::pg_snapshot)", (seen,))
    return {(symbol, day): [(r.lower, r.upper) for r in spans] for symbol, day, spans in rows}


def test_changes_since_a_snapshot_are_returned_by_day(
    connection: psycopg.Connection[Any],
) -> None:
    write(connection, "OLDUSDT", START)
    seen = snapshot(connection)
    assert changed(connection, seen) == {}
    write(connection, "BTCUSDT", START, START + MINUTE, START + 2 * MINUTE, START + 9 * MINUTE)

    midnight = FIRST + 2 * MINUTE
    assert changed(connection, seen) == {
        ("BTCUSDT", FIRST.date()): [(FIRST, midnight)],
        ("BTCUSDT", midnight.date()): [
            (midnight, midnight + MINUTE),
            (FIRST + 9 * MINUTE, FIRST + 10 * MINUTE),
        ],
    }
    assert changed(connection, snapshot(connection)) == {}


def test_transaction_that_commits_after_the_snapshot_is_new(
    connection: psycopg.Connection[Any], database_url: str
) -> None:
    with psycopg.connect(database_url) as late:
        write(late, "BTCUSDT", START)
        write(connection, "ETHUSDT", START)
        seen = snapshot(connection)
        assert changed(connection, seen) == {}
        late.commit()
    assert changed(connection, seen) == {("BTCUSDT", FIRST.date()): [(FIRST, FIRST + MINUTE)]}


@pytest.mark.parametrize(
    ("statement", "symbols"),
    [
        ("DELETE FROM market.agg_trades WHERE symbol = 'BTCUSDT'", {"BTCUSDT"}),
        (
            "UPDATE market.agg_trades SET symbol = 'NEWUSDT' WHERE symbol = 'BTCUSDT'",
            {"BTCUSDT", "NEWUSDT"},
        ),
        ("TRUNCATE market.agg_trades", {"BTCUSDT", "ETHUSDT"}),
    ],
)
def test_deleted_and_updated_trades_are_returned(
    connection: psycopg.Connection[Any], statement: str, symbols: set[str]
) -> None:
    write(connection, "BTCUSDT", START)
    write(connection, "ETHUSDT", START)
    seen = snapshot(connection)
    connection.execute(statement.encode())
    minute = [(FIRST, FIRST + MINUTE)]
    assert changed(connection, seen) == {(symbol, FIRST.date()): minute for symbol in symbols}


def test_trades_copied_from_a_temporary_table_have_its_transaction(
    connection: psycopg.Connection[Any],
) -> None:
    seen = snapshot(connection)
    with connection.transaction():
        connection.execute("CREATE TEMPORARY TABLE staged (LIKE market.trades) ON COMMIT DROP")
        connection.execute(
            "INSERT INTO staged (symbol, day, trade_id, price, quantity, trade_time,"
            " is_buyer_maker) VALUES ('BTCUSDT', %s, 1, 1, 1, %s, true)",
            (START.date(), START),
        )
        connection.execute(
            "INSERT INTO market.trades (symbol, day, trade_id, price, quantity, trade_time,"
            " is_buyer_maker) SELECT symbol, day, trade_id, price, quantity, trade_time,"
            " is_buyer_maker FROM staged ON CONFLICT DO NOTHING"
        )
    assert changed(connection, seen) == {("BTCUSDT", FIRST.date()): [(FIRST, FIRST + MINUTE)]}
