"""Writers create partitions on demand."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from psycopg import errors

from include.domain.candles import CandleCandidate
from include.domain.timeframes import MINUTE_US
from include.store.candles.minutes import merge_candidates, read_candles
from tests.unit.store.candidates import NOVEMBER_END_US, candidate, moved

Connection = psycopg.Connection[Any]


def ensure(connection: Connection, relation: str, moment: str) -> str:
    row = connection.execute(
        "SELECT ops.ensure_partition(%s::regclass, %s)", (relation, moment)
    ).fetchone()
    assert row is not None
    return str(row[0])


def partitions(connection: Connection) -> list[tuple[str, str]]:
    return connection.execute(
        """
        SELECT c.relname, pg_get_expr(c.relpartbound, c.oid)
        FROM pg_inherits AS i INNER JOIN pg_class AS c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'market.candles_1m'::regclass ORDER BY 1
        """
    ).fetchall()


def test_last_and_first_minute_of_a_month_go_to_their_own_partitions(
    connection: Connection,
) -> None:
    connection.execute("SET TimeZone = 'America/New_York'")

    merge_candidates(connection, [moved(candidate(), "A", n) for n in (0, 1)])

    connection.execute("SET TimeZone = 'UTC'")
    assert partitions(connection) == [
        (
            "candles_1m_y2025m11",
            "FOR VALUES FROM ('2025-11-01 00:00:00+00') TO ('2025-12-01 00:00:00+00')",
        ),
        (
            "candles_1m_y2025m12",
            "FOR VALUES FROM ('2025-12-01 00:00:00+00') TO ('2026-01-01 00:00:00+00')",
        ),
    ]
    sizes = [
        connection.execute(f"SELECT count(*) FROM market.{name}").fetchone()  # noqa: S608
        for name, _ in partitions(connection)
    ]
    assert sizes == [(1,), (1,)]


def test_batch_across_years_creates_only_the_partitions_it_needs(connection: Connection) -> None:
    days = 1440
    merge_candidates(connection, [moved(candidate(), "A", n) for n in (0, -400 * days, 90 * days)])

    assert [name for name, _ in partitions(connection)] == [
        "candles_1m_y2024m10",
        "candles_1m_y2025m11",
        "candles_1m_y2026m02",
    ]


def test_existing_partition_is_returned(connection: Connection) -> None:
    names = {ensure(connection, "market.candles_1m", "2024-02-29 23:59:59.999999Z") for _ in "ab"}

    assert names == {"candles_1m_y2024m02"}


@pytest.mark.parametrize("relation", ["agg_trades", "trades", "book_tickers", "liquidations"])
def test_raw_capture_is_partitioned_by_utc_day(connection: Connection, relation: str) -> None:
    connection.execute("SET TimeZone = 'Asia/Tokyo'")

    name = ensure(connection, f"market.{relation}", "2026-11-30 23:59:59Z")

    assert name == f"{relation}_y2026m11d30"


@pytest.mark.parametrize(
    ("relation", "moment"),
    [
        ("market.instruments", "2026-11-21"),
        ("ops.gaps", "2026-11-21"),
        ("market.candles_1m", "infinity"),
    ],
)
def test_other_tables_are_refused(connection: Connection, relation: str, moment: str) -> None:
    with pytest.raises(errors.InvalidParameterValue):
        ensure(connection, relation, moment)


def test_many_writers_that_need_the_same_new_partition_all_succeed(
    connection: Connection, connect_again: Callable[[str], Connection]
) -> None:
    def write(number: int) -> None:
        mine = connect_again(f"writer-{number}")
        of: list[CandleCandidate] = [moved(candidate(), f"S{number}", 44_640 * n) for n in range(6)]
        merge_candidates(mine, of)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(write, range(4), timeout=60))

    assert connection.execute("SELECT count(*) FROM market.candles_1m").fetchone() == (24,)


def test_writer_waits_for_the_creator_of_a_partition(
    connection: Connection, connect_again: Callable[[str], Connection]
) -> None:
    """Found, but not yet visible to all as its parent's: so it is for a moment after the commit."""
    name = ensure(connection, "market.candles_1m", "2030-01-01Z")
    other = connect_again("other")
    other.execute("SET lock_timeout = '10ms'")

    with connection.transaction():
        connection.execute(f"LOCK TABLE market.{name} IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(errors.LockNotAvailable):
            ensure(other, "market.candles_1m", "2030-01-01Z")

    assert ensure(other, "market.candles_1m", "2030-01-01Z") == name


def test_partition_dropped_during_the_wait_is_created_again(
    connection: Connection,
    connect_again: Callable[[str], Connection],
    wait_until_blocked: Callable[[str], None],
) -> None:
    name = ensure(connection, "market.trades", "2030-01-01Z")
    other = connect_again("other")

    with ThreadPoolExecutor(1) as threads:
        with connection.transaction():
            connection.execute(f"DROP TABLE market.{name}")
            asked = threads.submit(ensure, other, "market.trades", "2030-01-01Z")
            wait_until_blocked("other")
        assert asked.result(timeout=30) == name

    row = other.execute("SELECT to_regclass(%s) IS NOT NULL", (f"market.{name}",)).fetchone()
    assert row == (True,)


def test_partition_creation_blocks_no_reader_or_writer(
    connection: Connection, connect_again: Callable[[str], Connection]
) -> None:
    merge_candidates(connection, [candidate()])
    other = connect_again("other")
    other.execute("SET lock_timeout = '2s'")

    with connection.transaction():
        ensure(connection, "market.candles_1m", "2030-01-01Z")
        read = read_candles(other, "BTCUSDT", NOVEMBER_END_US, NOVEMBER_END_US + MINUTE_US)
        written = merge_candidates(other, [moved(candidate(), "ETHUSDT", 0)])

    assert (len(read), written.inserted) == (1, 1)


def test_partition_has_constraints_and_key_of_its_parent(connection: Connection) -> None:
    name = ensure(connection, "market.candles_1m", "2026-11-01Z")
    rules = (
        "SELECT contype, count(*) FROM pg_constraint WHERE conrelid = %s::regclass "
        "AND contype IN ('c', 'p') GROUP BY 1 ORDER BY 1"
    )

    of_partition = connection.execute(rules, (f"market.{name}",)).fetchall()

    assert of_partition == connection.execute(rules, ("market.candles_1m",)).fetchall()
    assert len(of_partition) == 2
