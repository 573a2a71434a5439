"""Acknowledged rows are compared with stored rows, by the last row of each symbol."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from include.store.trades.captured import AGG_TRADES, BOOK_TICKERS, RawTable, book_ticker_line
from include.store.trades.ids import Reached
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
    """Has the rows up to these ids by symbol, made in as many microseconds."""

    def __init__(self) -> None:
        self.last: dict[str, dict[str, tuple[int, int]]] = {"agg_trades": {}, "book_tickers": {}}
        self.asked: list[tuple[str, list[str]]] = []
        self.dropped: set[date] = set()

    def has(self, table: RawTable, symbol: str, number: int) -> None:
        self.last[table.name][symbol] = (number, AT_US + number)

    def rows_gone(
        self, _connection: object, table: RawTable, rows: Sequence[Reached]
    ) -> dict[str, tuple[int, int] | None]:
        self.asked.append((table.name, [row.symbol for row in rows]))
        last = self.last[table.name]
        return {
            row.symbol: last.get(row.symbol)
            for row in rows
            if row.symbol not in last or last[row.symbol][0] < row.last_id
        }

    def dropped_days(
        self, _connection: object, _table: RawTable, since_us: int, until_us: int
    ) -> set[date]:
        assert AT_US < since_us <= until_us
        return self.dropped


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Table:
    one = Table()
    monkeypatch.setattr(module, "rows_gone", one.rows_gone)
    monkeypatch.setattr(module, "dropped_days", one.dropped_days)
    monkeypatch.setattr(module, "connect", lambda *_, **__: contextlib.nullcontext())
    return one


async def missing_rows(acknowledged: StoredRowsCheck, behind: list[Behind]) -> list[Behind]:
    behind.clear()
    await acknowledged.check()
    return list(behind)


async def test_nothing_is_queried_before_anything_is_stored(table: Table, tmp_path: Path) -> None:
    await StoredRowsCheck("none", lambda _: None, tmp_path).check()
    assert table.asked == []


async def test_lost_rows_are_reported_once_with_the_last_remaining_row(
    table: Table, tmp_path: Path
) -> None:
    behind: list[Behind] = []
    acknowledged = StoredRowsCheck("none", behind.extend, tmp_path)
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


async def test_rows_newer_than_our_own_are_no_loss(table: Table, tmp_path: Path) -> None:
    behind: list[Behind] = []
    acknowledged = StoredRowsCheck("none", behind.extend, tmp_path)
    acknowledged.note(AGG_TRADES, [trade("A", 500)])
    table.has(AGG_TRADES, "A", 600)
    assert await missing_rows(acknowledged, behind) == []


async def test_archived_rows_are_not_lost(table: Table, tmp_path: Path) -> None:
    behind: list[Behind] = []
    acknowledged = StoredRowsCheck("none", behind.extend, tmp_path)
    acknowledged.note(AGG_TRADES, [trade("A", 500)])
    table.dropped = {date(2025, 11, 21)}
    assert await missing_rows(acknowledged, behind) == []
    table.dropped = {date(2025, 11, 20)}
    assert [one.symbol for one in await missing_rows(acknowledged, behind)] == ["A"]


async def test_rows_that_a_start_read_are_expected_until_newer_ones_are_written(
    table: Table, tmp_path: Path
) -> None:
    behind: list[Behind] = []
    acknowledged = StoredRowsCheck("none", behind.extend, tmp_path)
    acknowledged.expect("agg_trades", {"A": (500, AT_US + 500), "B": (7, AT_US + 7)})
    acknowledged.expect("agg_trades", {"A": (400, AT_US + 400)})
    acknowledged.expect("book_tickers", {})
    assert acknowledged.is_due
    table.has(AGG_TRADES, "A", 450)
    table.has(AGG_TRADES, "B", 7)
    assert await missing_rows(acknowledged, behind) == [
        Behind("agg_trades", "A", 500, AT_US + 500, (450, AT_US + 450))
    ]
    assert not acknowledged.is_due
    acknowledged.note(AGG_TRADES, [trade("B", 9)])
    assert [one.id for one in await missing_rows(acknowledged, behind)] == [9]
    assert await missing_rows(acknowledged, behind) == []


async def test_rows_known_when_spooling_began_are_expected_by_the_next_process(
    table: Table, tmp_path: Path
) -> None:
    killed = StoredRowsCheck("none", lambda _: None, tmp_path)
    assert killed.saving() is None
    killed.note(BOOK_TICKERS, [book_ticker("A", 31)])
    killed.expect("agg_trades", {"B": (7, AT_US + 7)})
    save(killed)
    assert killed.saving() is None
    behind: list[Behind] = []
    following = StoredRowsCheck("none", behind.extend, tmp_path)
    following.load()
    table.has(BOOK_TICKERS, "A", 28)
    table.has(AGG_TRADES, "B", 7)
    assert await missing_rows(following, behind) == [
        Behind("book_tickers", "A", 31, AT_US + 31, (28, AT_US + 28))
    ]
    assert following.is_outdated
    save(following)
    assert not following.is_outdated
    later = StoredRowsCheck("none", behind.extend, tmp_path)
    later.load()
    assert await missing_rows(later, behind) == []


def save(acknowledged: StoredRowsCheck) -> None:
    saving = acknowledged.saving()
    assert saving is not None
    saving()


def test_refused_save_is_tried_again(tmp_path: Path) -> None:
    acknowledged = StoredRowsCheck("none", lambda _: None, tmp_path / "gone")
    acknowledged.note(BOOK_TICKERS, [book_ticker("A", 31)])
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            save(acknowledged)


def test_rows_of_datasets_that_this_version_does_not_know_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "acknowledged.json").write_text(
        '[{"dataset": "depth", "symbol": "A", "id": 1, "time_us": 2}]'
    )
    acknowledged = StoredRowsCheck("none", lambda _: None, tmp_path)
    acknowledged.load()
    assert not acknowledged.is_due
