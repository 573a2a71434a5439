"""Gaps that were opened are closed or open, also where others end them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from include.store.ledgers.gaps import Gap
from streamer.storage import gap_ledger as module
from streamer.storage.gap_ledger import GapLedger
from tests.unit.streamer.played_gaps import Row, Table, all_written, at, played_table, until


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Table:
    return played_table(monkeypatch)


@pytest.fixture
async def ledger(table: Table, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[GapLedger]:
    """A ledger at work that looks at the table all the time."""
    monkeypatch.setattr(module, "POLL_INTERVAL_S", 0.01)
    one = GapLedger("postgresql://here/candles")
    task = asyncio.create_task(one.run())
    yield one
    task.cancel()
    await asyncio.wait({task})


async def test_given_up_gap_counts_as_open_until_its_row_is_closed(
    ledger: GapLedger, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH_ROWS", 1)  # one row for each check
    for number in range(3):
        ledger.give_up("A", at(2 * number), at(2 * number + 1), "no frames received", "refused")
    await all_written(ledger)
    table.filled = {2}  # that is for repair_gaps to see
    table.rows[1].by = table.rows[3].by = "rest"  # as it closes them
    await until(lambda: ledger.open == 1)
    assert (ledger.opened, ledger.closed) == (3, 2)
    assert table.written()[1:] == [("A", 2, 3, None), ("A", 4, 5, "rest")]
    table.rows[2].by = "rest"
    await until(lambda: ledger.open == 0)
    assert (ledger.opened, ledger.closed) == (3, 3)


async def test_minutes_given_up_twice_share_a_row(ledger: GapLedger, table: Table) -> None:
    for _ in range(2):
        ledger.give_up("A", at(0), at(1), "no frames received", "refused")
        await all_written(ledger)
    assert table.written() == [("A", 0, 1, None)]
    assert ledger.opened - ledger.closed == ledger.open > 0
    table.rows[1].by = "rest"
    await until(lambda: ledger.open == 0)
    assert ledger.opened == ledger.closed


async def test_gap_in_two_rows_stays_open_when_another_process_closes_one(
    ledger: GapLedger, table: Table
) -> None:
    ledger.missed("A", at(0), at(1), "connection lost")
    await all_written(ledger)
    table.rows[1].by = "rest"
    ledger.missed("A", at(1), at(3), "not streamed")  # its row is closed: another one
    ledger.missed("B", at(0), at(1), "connection lost")
    await until(lambda: len(table.rows) == 3)
    await all_written(ledger)
    table.rows[3].by = "rest"
    await until(lambda: ledger.open == 1)
    assert table.written()[1] == ("A", 0, 3, None)
    ledger.proven("A", at(0), at(3), "rest")
    await all_written(ledger)
    assert table.written()[1] == ("A", 0, 3, "rest")
    assert (ledger.opened, ledger.closed, ledger.open) == (2, 2, 0)


@pytest.mark.parametrize("symbol", ["A", "B"])
async def test_gap_without_its_row_is_opened_again(
    ledger: GapLedger, table: Table, symbol: str
) -> None:
    """The server that took over had not got it, and has given its id to another."""
    ledger.missed("A", at(0), at(1), "connection lost")
    await all_written(ledger)
    table.rows = {1: Row(symbol, 7, 8, "not streamed", opened_us=77)}
    await until(lambda: len(table.rows) == 2)
    await all_written(ledger)
    assert (ledger.opened, ledger.closed, ledger.open) == (1, 0, 1)
    ledger.proven("A", at(0), at(1), "rest")
    await all_written(ledger)
    assert table.written() == [(symbol, 7, 8, None), ("A", 0, 1, "rest")]
    assert (ledger.opened, ledger.closed, ledger.open) == (1, 1, 0)


async def test_given_up_gap_that_a_new_server_lacks_is_opened_again(
    ledger: GapLedger, table: Table
) -> None:
    ledger.give_up("A", at(0), at(1), "no frames received", "refused")
    await all_written(ledger)
    table.rows.clear()
    await until(lambda: bool(table.rows))
    await all_written(ledger)
    assert [(row.symbol, row.start, row.end) for row in table.rows.values()] == [("A", 0, 1)]
    assert (ledger.opened, ledger.closed, ledger.open) == (1, 0, 1)


async def test_minutes_left_to_jobs_keep_their_row_after_a_failover(
    ledger: GapLedger, table: Table
) -> None:
    table.rows[1] = Row("A", 0, 3, "not streamed")  # as the start recorded it
    ledger.leave("A", at(0), at(3), "not streamed", "too old")
    ledger.missed("A", at(3), at(4), "connection lost")  # a gap of its own: it is repaired at once
    await all_written(ledger)
    assert [(row.start, row.end) for row in table.rows.values()] == [(0, 3), (3, 4)]
    table.rows.clear()
    await until(lambda: len(table.rows) == 2)
    await all_written(ledger)
    assert sorted((row.start, row.end) for row in table.rows.values()) == [(0, 3), (3, 4)]


async def test_gaps_of_an_ended_streamer_are_counted_as_opened_too(
    ledger: GapLedger, table: Table
) -> None:
    for number, symbol in enumerate("ABC", 1):
        table.rows[number] = Row(symbol, 0, 3, "connection lost", opened_us=at(1))
        ledger.adopt([Gap(number, symbol, at(0), at(3), "connection lost", at(1), 1, {})])
    assert (ledger.opened, ledger.closed, ledger.open) == (3, 0, 3)
    ledger.proven("A", at(0), at(3), "rest")
    ledger.give_up("B", at(0), at(3), "connection lost", "refused")
    table.filled = {3}
    await until(lambda: ledger.open == 1)
    assert (ledger.opened, ledger.closed) == (3, 2)
    assert [row.by for row in table.rows.values()] == ["rest", None, "rows"]


async def test_given_up_gap_that_is_adopted_again_is_counted_once(
    ledger: GapLedger, table: Table
) -> None:
    ledger.give_up("A", at(0), at(1), "no frames received", "refused")
    await all_written(ledger)
    ledger.adopt([Gap(1, "A", at(0), at(1), "no frames received", table.opened, 1, {})])
    assert (ledger.opened, ledger.closed, ledger.open) == (1, 0, 1)
    table.filled = {1}
    await until(lambda: ledger.open == 0)
    assert (ledger.opened, ledger.closed) == (1, 1)


async def test_given_up_gaps_beyond_the_bound_are_not_counted(
    ledger: GapLedger, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_GIVEN_UP", 2)
    for number in range(3):
        ledger.give_up("A", at(2 * number), at(2 * number + 1), "no frames received", "refused")
    await all_written(ledger)
    assert len(table.open_ranges()) == 3
    assert ledger.open == 2
