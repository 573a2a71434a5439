"""Captured trades by id, over days, missing ids, and a reused ticker."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from psycopg import sql

from include.domain.timeframes import DAY_US, MINUTE_US, from_us
from include.store.trades.captured import AGG_TRADES, TRADES, write_raw
from include.store.trades.pages import DAYS_AT_ONCE, SWAPPED, StoredTrade, TradePage, read_trades
from tests.integration.store.trades.test_ids import AT_US, agg_line, one_line

Connection = psycopg.Connection[Any]
MIDNIGHT_US = AT_US // DAY_US * DAY_US + DAY_US
FIRST_DAY = from_us(AT_US).date()


def ids(page: TradePage | None) -> list[int]:
    assert page is not None
    return [one.id for one in page.trades]


def test_fills_of_the_insurance_fund_are_left_out(connection: Connection) -> None:
    row = ("A.P", Decimal(1), Decimal(1))
    for number, trade_type in ((1, "MARKET"), (2, "INSURANCE_FUND"), (3, None), (4, "ADL")):
        line = TRADES.line((row[0], number, *row[1:], None, AT_US + number, True, trade_type))
        write_raw(connection, TRADES, [line])
    page = read_trades(connection, TRADES, "A.P", 1, limit=9, since_us=0)
    assert page is not None
    assert [one.id for one in page.trades] == [1, 3]


@pytest.mark.parametrize("role", ["candelabra_reader", "candelabra_streamer"])
def test_page_starts_at_an_id_on_any_day(
    connection: Connection, acting_as: Callable[[str], Any], role: str
) -> None:
    lines = [agg_line(number) for number in (10, 11, 13)]
    # days without a trade lie between
    lines += [agg_line(number, at_us=AT_US + 5 * DAY_US + number) for number in (14, 15)]
    lines += [agg_line(number, at_us=AT_US + 37 * DAY_US + number) for number in (16, 20)]
    write_raw(connection, AGG_TRADES, [*lines, agg_line(1, symbol="B")])
    stored = [10, 11, 13, 14, 15, 16, 20]
    with acting_as(role):
        for from_id in range(22):
            for limit in (1, 3, 100):
                page = read_trades(connection, AGG_TRADES, "A", from_id, limit=limit, since_us=0)
                left = [one for one in stored if one >= from_id]
                assert ids(page) == left[:limit], (from_id, limit)
                assert page is not None
                assert page.further_id == (left[limit] if len(left) > limit else None)
        page = read_trades(connection, AGG_TRADES, "A", 11, 15, limit=3, since_us=0)
        assert (ids(page), page and page.further_id) == ([11, 13, 14], 15)
        page = read_trades(connection, AGG_TRADES, "A", 12, 12, limit=3, since_us=0)
        assert page == TradePage([], None, 10, FIRST_DAY, 20, date(2025, 12, 28))
        assert read_trades(connection, AGG_TRADES, "C", 0, limit=3, since_us=0) is None


def test_rows_are_returned_as_stored(connection: Connection) -> None:
    write_raw(connection, AGG_TRADES, [agg_line(10)])
    write_raw(connection, TRADES, [one_line(7, symbol="A")])
    price, quantity = Decimal("2.5"), Decimal("1E-8")
    page = read_trades(connection, AGG_TRADES, "A", 0, limit=3, since_us=0)
    assert page is not None
    assert page.trades == [StoredTrade(10, price, quantity, 10, 10, from_us(AT_US + 10), True)]
    page = read_trades(connection, TRADES, "A", 0, limit=3, since_us=0)
    assert page is not None
    assert page.trades == [StoredTrade(7, price, quantity, 7, 7, from_us(AT_US + 7), True)]


def test_ids_out_of_order_at_midnight_are_sorted(
    connection: Connection,
) -> None:
    times = {1: -3, 2: 2, 3: -1, 4: 1, 5: 4}
    write_raw(
        connection,
        AGG_TRADES,
        [agg_line(number, at_us=MIDNIGHT_US + offset) for number, offset in times.items()],
    )
    for from_id in range(1, 6):
        page = read_trades(connection, AGG_TRADES, "A", from_id, limit=2, since_us=0)
        assert ids(page) == list(range(from_id, 6))[:2]


def test_trades_of_the_former_instrument_are_excluded(connection: Connection) -> None:
    write_raw(connection, AGG_TRADES, [agg_line(number) for number in (900, 901)])
    again_us = AT_US + 9 * DAY_US
    write_raw(
        connection, AGG_TRADES, [agg_line(number, at_us=again_us + number) for number in (0, 1, 2)]
    )
    page = read_trades(connection, AGG_TRADES, "A", 1, limit=9, since_us=again_us - MINUTE_US)
    assert ids(page) == [1, 2]
    assert page is not None
    assert (page.first_id, page.last_id) == (0, 2)


def test_ticker_reused_within_a_day_is_split_by_time(
    connection: Connection,
) -> None:
    again_us = MIDNIGHT_US - MINUTE_US
    # more than a page reads beyond its end
    old = [agg_line(900 + number, at_us=again_us - 99 + number) for number in range(99)]
    new = [agg_line(number, at_us=again_us + number) for number in (1, 2, 3)]
    new += [agg_line(number, at_us=MIDNIGHT_US + number) for number in (4, 5)]
    write_raw(connection, AGG_TRADES, [*old, *new])
    for from_id in range(1, 7):
        page = read_trades(connection, AGG_TRADES, "A", from_id, limit=2, since_us=again_us)
        assert ids(page) == [one for one in (1, 2, 3, 4, 5) if one >= from_id][:2]
        assert page is not None
        assert (page.first_id, page.first_day) == (1, FIRST_DAY)
        assert (page.last_id, page.last_day) == (5, from_us(MIDNIGHT_US).date())
    page = read_trades(connection, AGG_TRADES, "A", 0, limit=200, since_us=again_us)
    assert ids(page) == [1, 2, 3, 4, 5]
    page = read_trades(connection, AGG_TRADES, "A", 900, limit=2, since_us=again_us)
    assert ids(page) == []
    later_us = MIDNIGHT_US + MINUTE_US
    assert read_trades(connection, AGG_TRADES, "A", 0, limit=2, since_us=later_us) is None


def test_page_reads_the_index_of_only_a_few_days(connection: Connection) -> None:
    days, of_a_day = 40, 10
    lines = [
        agg_line(day * of_a_day + number, symbol=symbol, at_us=MIDNIGHT_US + day * DAY_US + number)
        for day in range(days)
        for number in range(of_a_day)
        for symbol in "AB"
    ]
    write_raw(connection, AGG_TRADES, lines)
    for name in ("enable_seqscan", "enable_sort"):  # of so few rows these were cheaper
        connection.execute(f"SET {name} = off")
    explaining: Any = Explaining(connection)
    for from_id in (0, days * of_a_day // 2, (days - 1) * of_a_day):
        page = read_trades(explaining, AGG_TRADES, "A", from_id, limit=15, since_us=0)
        assert ids(page)[:1] == [from_id]
    plans = [plan for plan in explaining.plans if plan["Node Type"] == "Limit"]
    assert len(plans) <= 3 * (2 + 6 + 2)  # both ends, halves of 40 days, the rows
    assert len(explaining.plans) == len(plans) + 3  # which days there are
    for plan in plans:
        assert sum("Relation Name" in node for node in nodes_of(plan)) <= DAYS_AT_ONCE
        read = [node for node in nodes_of(plan) if node.get("Actual Loops")]
        assert any("Relation Name" in node for node in read)
        assert {node["Node Type"] for node in read} <= {
            "Limit", "Append", "Index Scan", "Index Only Scan",
        }  # fmt: skip


def test_page_locks_only_a_few_of_hundreds_of_days(connection: Connection) -> None:
    days = 240
    lines = [agg_line(day, at_us=MIDNIGHT_US + day * DAY_US) for day in range(days)]
    lines += [agg_line(7, symbol="B", at_us=MIDNIGHT_US + day * DAY_US) for day in (0, days - 1)]
    write_raw(connection, AGG_TRADES, lines)
    # Often enough for driver and server to prepare the statement.
    for _ in range(12):
        counting: Any = CountingLocks(connection)
        page = read_trades(counting, AGG_TRADES, "A", days // 2, limit=15, since_us=0)
        assert ids(page) == list(range(days // 2, days // 2 + 15))
        halves, rows = 8, (15 + SWAPPED) // DAYS_AT_ONCE + 1
        assert len(counting.locks) <= 1 + 2 + halves + rows
        # A day is a table and two indexes; a statement uses those of the parent as well.
        assert max(counting.locks) <= 3 * (DAYS_AT_ONCE + 1) + 5


@pytest.mark.parametrize(("symbol", "stored"), [("B", [7]), ("C", None)])
def test_symbol_of_few_days_is_searched_in_runs_of_days(
    connection: Connection, symbol: str, stored: list[int] | None
) -> None:
    days = 100
    lines = [agg_line(day, at_us=MIDNIGHT_US + day * DAY_US) for day in range(days)]
    lines.append(agg_line(7, symbol="B", at_us=MIDNIGHT_US + (days - 1) * DAY_US))
    write_raw(connection, AGG_TRADES, lines)
    counting: Any = CountingLocks(connection)
    page = read_trades(counting, AGG_TRADES, symbol, 0, limit=15, since_us=0)
    assert (None if page is None else ids(page)) == stored
    assert len(counting.locks) <= 1 + days // DAYS_AT_ONCE + 1 + 2
    assert max(counting.locks) <= 3 * (DAYS_AT_ONCE + 1) + 5


class Explaining:
    """A connection that keeps the plan of each statement."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.plans: list[dict[str, Any]] = []

    def execute(self, query: sql.Composed, values: Any, **how: Any) -> psycopg.Cursor[Any]:
        explained = sql.SQL("EXPLAIN (ANALYZE, FORMAT JSON) ") + query
        found = self._connection.execute(explained, values, **how).fetchone()
        assert found is not None
        self.plans.append(found[0][0]["Plan"])
        return self._connection.execute(query, values, **how)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


class CountingLocks:
    """A connection that keeps how many relations each statement locks."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.locks: list[int] = []

    def execute(self, query: sql.Composed, values: Any, **how: Any) -> psycopg.Cursor[Any]:
        with self._connection.transaction():
            cursor = self._connection.execute(query, values, **how)
            found = self._connection.execute(
                "SELECT count(*) FROM pg_locks "
                "WHERE pid = pg_backend_pid() AND locktype = 'relation' "
                "AND relation <> 'pg_locks'::regclass"
            ).fetchone()
        assert found is not None
        self.locks.append(found[0])
        return cursor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def nodes_of(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for part in plan.get("Plans", ()) for node in nodes_of(part))]
