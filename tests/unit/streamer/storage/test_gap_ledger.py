"""The gap ledger between the stream and a played table."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest
from structlog.testing import CapturingLogger

from include.domain.candles import CandleCandidate, Source, Status, silent_candle
from include.errors import PermanentError, TransientError
from include.store.ledgers.gaps import Gap
from streamer.candles.events import AFTER_DATABASE_OUTAGE, NO_CLOSED_KLINE, NO_FRAMES
from streamer.storage import gap_ledger as module
from streamer.storage.gap_ledger import MAX_GAPS_PER_SYMBOL, GapLedger
from tests.unit.streamer.played_gaps import Row, Table, all_written, at, played_table, until


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Table:
    return played_table(monkeypatch)


@pytest.fixture
async def ledger(table: Table) -> AsyncIterator[GapLedger]:
    """A ledger at work."""
    one = GapLedger("postgresql://here/candles")
    task = asyncio.create_task(one.run())
    yield one
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def kline(symbol: str, number: int, source: Source = Source.KLINE) -> CandleCandidate:
    candle = silent_candle(symbol, at(number), Decimal(7))
    if source is Source.STREAM:
        return CandleCandidate(candle, Status.UNCONFIRMED, source)
    return CandleCandidate(candle, Status.VERIFIED, source, at(number + 1))


async def test_gap_is_opened_immediately_and_closed_by_the_row_that_proves_it(
    ledger: GapLedger, table: Table
) -> None:
    ledger.missed("A", at(0.5), at(0.6), "connection lost")
    await all_written(ledger)
    assert table.written() == [("A", 0, 1, None)]
    assert table.rows[1].cause == "connection lost"
    ledger.stored([kline("B", 0), kline("A", 1), kline("A", 0, Source.STREAM)])
    assert ledger.unwritten == 0  # another symbol, another minute, and no word of the exchange
    ledger.stored([kline("A", 0)])
    await all_written(ledger)
    assert table.written() == [("A", 0, 1, "kline")]
    assert (ledger.opened, ledger.closed, ledger.open) == (1, 1, 0)


async def test_gap_is_closed_only_when_every_minute_is_proven(
    ledger: GapLedger, table: Table
) -> None:
    ledger.missed("A", at(0), at(5), "not streamed")
    await all_written(ledger)
    ledger.proven("A", at(0), at(2), "rest")
    ledger.proven("A", at(3), at(5), "rest")
    assert ledger.unwritten == 0
    ledger.stored([kline("A", 2)])
    await all_written(ledger)
    assert table.written() == [("A", 0, 5, "kline and rest")]


async def test_growing_disconnect_stays_one_row_per_symbol(ledger: GapLedger, table: Table) -> None:
    for number in range(500):
        ledger.missed(f"S{number}", at(0), at(1), "connection lost")
    await all_written(ledger)
    for number in range(500):
        ledger.missed(f"S{number}", at(1), at(180), "not streamed")
        ledger.missed(f"S{number}", at(180), at(181), "no closed kline")
    await all_written(ledger)
    assert len(table.rows) == 500
    assert set(table.written()) == {(f"S{number}", 0, 181, None) for number in range(500)}
    assert table.writes == 1


async def test_known_gap_is_not_written_again(ledger: GapLedger, table: Table) -> None:
    ledger.missed("A", at(0), at(2), "missing trades")
    await all_written(ledger)
    ledger.missed("A", at(1.2), at(1.3), "missing trades")
    assert ledger.unwritten == 0


async def test_repeated_gaps_start_a_new_row_after_five_minutes(
    ledger: GapLedger, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = [0.0]
    monkeypatch.setattr(module, "_now_s", lambda: now_s[0])
    for number in range(20):
        now_s[0] = number * 60.0
        ledger.missed("A", at(number), at(number + 1), "missing trades")
        await all_written(ledger)
        if number:
            ledger.stored([kline("A", number - 1)])
    await all_written(ledger)
    assert [(row.start, row.end) for row in table.rows.values()] == [
        (0, 5), (5, 10), (10, 15), (15, 20),
    ]  # fmt: skip
    assert [row.by for row in table.rows.values()] == ["kline", "kline", "kline", None]


async def test_unproven_gap_of_hours_stays_one_row(
    ledger: GapLedger, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = [0.0]
    monkeypatch.setattr(module, "_now_s", lambda: now_s[0])
    ledger.missed("A", at(0), at(1), "connection lost")
    now_s[0] = 3 * 3_600.0
    ledger.missed("A", at(1), at(181), "not streamed")
    await all_written(ledger)
    assert table.written() == [("A", 0, 181, None)]


async def test_gaps_of_a_symbol_are_bounded(ledger: GapLedger, table: Table) -> None:
    for number in range(100):
        ledger.missed("A", at(3 * number), at(3 * number + 1), "missing trades")
    assert ledger.open == MAX_GAPS_PER_SYMBOL
    await all_written(ledger)
    assert table.written()[-1] == ("A", 3 * (MAX_GAPS_PER_SYMBOL - 1), 298, None)
    for number in range(100):
        ledger.stored([kline("A", 3 * number)])
    await all_written(ledger)
    assert ledger.open == 0
    assert {by for *_, by in table.written()} == {"kline"}


async def test_changes_during_a_database_outage_are_written_in_their_latest_state(
    ledger: GapLedger, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = CapturingLogger()
    monkeypatch.setattr(module, "log", log)
    table.failures = [TransientError("away"), PermanentError("read the manual"), TimeoutError()]
    ledger.missed("A", at(0), at(1), "connection lost")
    await until(lambda: len(log.calls) == 1)
    ledger.missed("A", at(1), at(4), "not streamed")
    await until(lambda: len(log.calls) == 3)
    await all_written(ledger)
    assert [call.kwargs["error"] for call in log.calls] == [
        "away", "read the manual", "TimeoutError",
    ]  # fmt: skip
    assert table.written() == [("A", 0, 4, None)]


async def test_minute_missed_again_while_its_row_closes_gets_another_row(
    ledger: GapLedger, table: Table
) -> None:
    table.gate = asyncio.Event()
    ledger.missed("A", at(0), at(1), "connection lost")
    ledger.proven("A", at(0), at(1), "rest")
    await until(lambda: len(table.rows) == 1)
    await asyncio.sleep(0.01)  # it is about to close the row
    ledger.missed("A", at(0), at(1), "late trade")
    table.gate.set()
    await until(lambda: len(table.rows) == 2)
    assert table.written() == [("A", 0, 1, "rest"), ("A", 0, 1, None)]
    ledger.proven("A", at(0), at(1), "rest")
    await all_written(ledger)
    assert table.written() == [("A", 0, 1, "rest"), ("A", 0, 1, "rest")]


async def test_given_up_gap_stays_open_with_the_reason(ledger: GapLedger, table: Table) -> None:
    ledger.give_up("A", at(0), at(1), "no frames received", "the exchange refuses it")
    await all_written(ledger)
    assert table.written() == [("A", 0, 1, None)]
    assert table.rows[1].error == "the exchange refuses it"
    assert (ledger.opened, ledger.closed, ledger.open) == (1, 0, 1)


async def test_gaps_of_an_ended_streamer_are_continued(ledger: GapLedger, table: Table) -> None:
    table.rows[1] = Row("A", 0, 3, "connection lost", opened_us=at(1))
    ledger.adopt([Gap(1, "A", at(0), at(3), "connection lost", at(1), 1, {})])
    ledger.missed("A", at(3), at(5), "not streamed")
    await all_written(ledger)
    assert table.written() == [("A", 0, 5, None)]
    ledger.proven("A", at(0), at(5), "rest")
    await all_written(ledger)
    assert table.written() == [("A", 0, 5, "rest")]
    assert (ledger.opened, ledger.closed, ledger.open) == (1, 1, 0)


async def test_known_gap_is_not_adopted_twice(ledger: GapLedger, table: Table) -> None:
    """As of a symbol that was dropped and is streamed again."""
    ledger.missed("A", at(0), at(3), "connection lost")
    known = Gap(1, "A", at(0), at(3), "connection lost", table.opened + 1, 1, {})
    ledger.adopt([known])  # its row is just being written
    await all_written(ledger)
    ledger.adopt([known])
    assert (table.written(), ledger.opened, ledger.open) == ([("A", 0, 3, None)], 1, 1)
    ledger.missed("A", at(3), at(5), "not streamed")
    ledger.adopt([known])  # read before it grew
    ledger.proven("A", at(0), at(5), "rest")
    await all_written(ledger)
    assert table.written() == [("A", 0, 5, "rest")]
    assert (ledger.opened, ledger.closed, ledger.open) == (1, 1, 0)


async def test_range_opened_by_another_streamer_is_shared(ledger: GapLedger, table: Table) -> None:
    ledger.missed("A", at(0), at(1), "connection lost")
    await all_written(ledger)
    table.rows[2] = Row("A", 0, 3, "connection lost")
    ledger.missed("A", at(1), at(3), "not streamed")
    await all_written(ledger)
    ledger.proven("A", at(0), at(3), "rest")
    await all_written(ledger)
    assert table.written() == [("A", 0, 1, "rest"), ("A", 0, 3, "rest")]


async def test_gap_of_missing_trades_starts_after_the_last_proven_minute(
    ledger: GapLedger, table: Table
) -> None:
    ledger.stored([kline("A", 4)])
    ledger.trades_lost("A", at(0.5), at(5.5), "missing trades")  # without trades since
    ledger.trades_lost("A", at(2.1), at(4.9), "missing trades")
    ledger.trades_lost("B", at(2.1), at(4.9), "missing trades")
    await all_written(ledger)
    assert table.written() == [("A", 5, 6, None), ("B", 2, 5, None)]


async def test_stop_writes_the_remaining_changes(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = CapturingLogger()
    monkeypatch.setattr(module, "log", log)
    ledger = GapLedger("postgresql://here/candles")
    ledger.missed("A", at(0), at(1), "connection lost")
    await ledger.flush()
    assert table.written() == [("A", 0, 1, None)]
    table.failures = [TransientError("away")]
    ledger.missed("B", at(0), at(1), "connection lost")
    await ledger.flush()
    assert [call.kwargs["error"] for call in log.calls] == ["away"]


async def test_gap_filled_by_another_process_is_closed(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "POLL_INTERVAL_S", 0.01)
    ledger = GapLedger("postgresql://here/candles")
    task = asyncio.create_task(ledger.run())
    ledger.missed("A", at(0), at(1), "connection lost")
    ledger.missed("B", at(0), at(1), "connection lost")
    await all_written(ledger)
    table.filled = {1}
    await until(lambda: ledger.open == 1)
    assert table.written() == [("A", 0, 1, "rows"), ("B", 0, 1, None)]
    task.cancel()
    await asyncio.wait({task})


@pytest.mark.parametrize(
    ("cause", "expects_klines", "is_missed"),
    [
        (NO_CLOSED_KLINE, True, True),
        (AFTER_DATABASE_OUTAGE, True, True),
        (AFTER_DATABASE_OUTAGE, False, False),
        (NO_CLOSED_KLINE, False, False),  # there REST is the regular confirmation
        (NO_FRAMES, True, False),  # it may be halted
        ("not streamed", True, True),
        ("not streamed", False, True),
    ],
)
async def test_request_to_rest_opens_a_gap_if_frames_were_missed(
    table: Table, cause: str, expects_klines: bool, is_missed: bool
) -> None:
    ledger = GapLedger("postgresql://here/candles", expects_klines=expects_klines)
    ledger.repair_requested("A", at(0), at(1), cause)
    assert ledger.open == is_missed


@pytest.mark.parametrize(("rows", "told"), [(0, []), (1, [("A", 0, 1, "rest")])])
async def test_silence_is_a_gap_only_where_rest_has_rows(
    ledger: GapLedger, table: Table, rows: int, told: list[tuple[Any, ...]]
) -> None:
    ledger.repair_requested("A", at(0), at(1), NO_FRAMES)
    ledger.repaired("A", at(0), at(1), NO_FRAMES, rows)
    await all_written(ledger)
    assert table.written() == told
    assert ledger.open == 0


async def test_gap_proven_before_a_failover_is_given_up_if_the_new_server_lacks_its_rows(
    ledger: GapLedger, table: Table
) -> None:
    for symbol in ("A", "B", "C"):
        ledger.missed(symbol, at(0), at(2), "connection lost")
    await all_written(ledger)
    ledger.stored([kline(symbol, 0) for symbol in ("A", "B", "C")])
    table.failures.append(TransientError("the server is gone"))
    ledger.missed("D", at(0), at(1), "connection lost")
    await until(lambda: not table.failures)
    del table.rows[3]  # the standby lacks the gap itself too
    table.filled.add(2)
    ledger.stored([kline(symbol, 1) for symbol in ("A", "B", "C")])
    await all_written(ledger)
    ended = {(row.symbol, row.by, row.error) for row in table.rows.values()}
    assert ended == {
        ("A", None, module.ROWS_GONE),
        ("B", "rows", None),
        ("C", None, module.ROWS_GONE),
        ("D", None, None),
    }
    assert ledger.open == 3
