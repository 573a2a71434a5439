"""Acknowledged rows are compared with stored rows, by the last row of each symbol."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import date
from decimal import Decimal

import pytest
from structlog.testing import capture_logs

from include.store.trades.captured import AGG_TRADES, BOOK_TICKERS, RawTable, book_ticker_line
from streamer.capture.repair import stored_rows_check as module
from streamer.capture.repair.stored_rows_check import Behind, StoredRowsCheck

AT_US = 1_763_716_800_000_000


def trade(symbol: str, number: int) -> str:
    at_us = AT_US + number
    row = (symbol, number, Decimal(1), Decimal(1), number, number, at_us, True)
    return AGG_TRADES.line(row)


def book_ticker(symbol: str, number: int) -> str:
    return book_ticker_line(symbol, number, "1", "2", "3", "4", None, AT_US + number)


class Table:
    """Has these last rows: ids by symbol, made in as many microseconds."""

    def __init__(self) -> None:
        self.last: dict[str, dict[str, tuple[int, int]]] = {"agg_trades": {}, "book_tickers": {}}
        self.asked: list[tuple[str, list[str]]] = []
        self.dropped: set[date] = set()

    def has(self, table: RawTable, symbol: str, number: int) -> None:
        self.last[table.name][symbol] = (number, AT_US + number)

    def last_rows(
        self, _connection: object, table: RawTable, symbols: Sequence[str], since_us: int | None
    ) -> dict[str, tuple[int, int]]:
        assert since_us is None
        self.asked.append((table.name, list(symbols)))
        return {one: row for one, row in self.last[table.name].items() if one in symbols}

    def dropped_days(
        self, _connection: object, _table: RawTable, since_us: int, until_us: int
    ) -> set[date]:
        assert AT_US < since_us <= until_us
        return self.dropped


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Table:
    one = Table()
    monkeypatch.setattr(module, "last_rows", one.last_rows)
    monkeypatch.setattr(module, "dropped_days", one.dropped_days)
    monkeypatch.setattr(module, "connect", lambda *_, **__: contextlib.nullcontext())
    return one


async def missing_rows(acknowledged: StoredRowsCheck, behind: list[Behind]) -> list[Behind]:
    behind.clear()
    await acknowledged.check()
    return list(behind)


async def test_nothing_is_queried_before_anything_is_stored(table: Table) -> None:
    await StoredRowsCheck("none", lambda _: None).check()
    assert table.asked == []


async def test_lost_rows_are_reported_once_with_the_last_remaining_row(table: Table) -> None:
    behind: list[Behind] = []
    acknowledged = StoredRowsCheck("none", behind.extend)
    acknowledged.note(AGG_TRADES, [trade("A", 1), trade("B", 7), trade("A", 2), trade("C", 4)])
    acknowledged.note(BOOK_TICKERS, [book_ticker("A", 30), book_ticker("A", 31)])
    for symbol, number in (("A", 1), ("B", 7)):
        table.has(AGG_TRADES, symbol, number)
    table.has(BOOK_TICKERS, "A", 28)
    with capture_logs() as logged:
        assert await missing_rows(acknowledged, behind) == [
            Behind("agg_trades", "A", 2, AT_US + 2, (1, AT_US + 1)),
            Behind("agg_trades", "C", 4, AT_US + 4, None),
            Behind("book_tickers", "A", 31, AT_US + 31, (28, AT_US + 28)),
        ]
    assert [(one["event"], one["symbols"]) for one in logged] == [("stored_rows_gone", 2)]
    assert table.asked == [("agg_trades", ["A", "B", "C"]), ("book_tickers", ["A"])]
    assert await missing_rows(acknowledged, behind) == []


async def test_rows_newer_than_our_own_are_no_loss(table: Table) -> None:
    behind: list[Behind] = []
    acknowledged = StoredRowsCheck("none", behind.extend)
    acknowledged.note(AGG_TRADES, [trade("A", 500), trade("B", 7)])
    table.has(AGG_TRADES, "A", 600)
    table.last["agg_trades"]["B"] = (1, AT_US + 8)  # of another instrument with the name
    assert await missing_rows(acknowledged, behind) == []


async def test_archived_rows_are_not_lost(table: Table) -> None:
    behind: list[Behind] = []
    acknowledged = StoredRowsCheck("none", behind.extend)
    acknowledged.note(AGG_TRADES, [trade("A", 500)])
    table.dropped = {date(2025, 11, 21)}
    assert await missing_rows(acknowledged, behind) == []
    table.dropped = {date(2025, 11, 20)}
    assert [one.symbol for one in await missing_rows(acknowledged, behind)] == ["A"]
