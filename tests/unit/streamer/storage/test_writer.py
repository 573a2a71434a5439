"""The writer between its buffer and a database that is played here."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from psycopg import errors
from structlog.testing import CapturingLogger

from include.backoff import Backoff
from include.domain.candles import CandleCandidate, Source, Status, silent_candle
from include.domain.timeframes import MINUTE_US
from include.errors import PermanentError, TransientError
from streamer.storage import writer as module
from streamer.storage.writer import CandleWriter
from tests.unit.streamer.played_database import T0, Aggregator, Connection, Database, number_of


def candidate(minute: int) -> CandleCandidate:
    candle = silent_candle("BTCUSDT", T0 + minute * MINUTE_US, Decimal(7))
    return CandleCandidate(candle, Status.VERIFIED, Source.KLINE, T0 + (minute + 1) * MINUTE_US)


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Database:
    database = Database()
    monkeypatch.setattr(module, "connect_async", database.connect)
    monkeypatch.setattr(module, "server_started_async", database.server_started)
    monkeypatch.setattr(module, "store_async", database.store)
    monkeypatch.setattr(module, "write_live_async", database.write_live)
    monkeypatch.setattr(module, "rotate_live_async", database.rotate_live)
    monkeypatch.setattr(module, "BACKOFF", Backoff(first_s=0.06, max_s=0.06, min_s=0.05))
    return database


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> CapturingLogger:
    log = CapturingLogger()
    monkeypatch.setattr(module, "log", log)
    return log


@pytest.fixture
def handed_back() -> list[tuple[int, str]]:
    """Minutes handed back, with the reason."""
    return []


def writer_of(
    handed_back: list[tuple[int, str]], *aggregators: Any, **changes: Any
) -> CandleWriter:
    def on_overflow(symbol: str, start_us: int, end_us: int, cause: str) -> None:
        assert (symbol, end_us - start_us) == ("BTCUSDT", MINUTE_US)
        handed_back.append((number_of(start_us), cause))

    sizes = {"batch_size": 8, "flush_timeout_s": 0.01, "buffer_rows": 1_000} | changes
    return CandleWriter(
        "postgresql://here/candles", lambda: list(aggregators), on_overflow=on_overflow, **sizes
    )


async def run_until(writer: CandleWriter, done: Callable[[], bool]) -> None:
    task = asyncio.create_task(writer.run())
    try:
        async with asyncio.timeout(30):
            while not done():
                assert not task.done()
                await asyncio.sleep(0.002)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def events(log: CapturingLogger) -> list[str]:
    return [call.args[0] for call in log.calls]


async def test_open_candles_of_many_symbols_are_written_in_pieces(
    database: Database, handed_back: list[tuple[int, str]]
) -> None:
    writer = writer_of(handed_back, *(Aggregator() for _ in range(2 * module.LIVE_SYMBOLS + 1)))
    await run_until(writer, lambda: len(database.live) >= 3)
    assert [len(rows) for rows in database.live] == [module.LIVE_SYMBOLS] * 2 + [1]


async def test_write_now_writes_open_candles_immediately(
    database: Database, handed_back: list[tuple[int, str]]
) -> None:
    aggregator = Aggregator()
    writer = writer_of(handed_back, aggregator, flush_timeout_s=60)
    async with asyncio.timeout(module.LIVE_INTERVAL_S):
        for writes in (1, 2, 3):
            aggregator.is_dirty = True
            writer.write_now()
            await run_until(writer, lambda writes=writes: len(database.live) == writes)


async def test_candidates_are_written_in_order_and_in_batches(
    database: Database, handed_back: list[tuple[int, str]]
) -> None:
    writer = writer_of(handed_back, batch_size=4)
    for minute in range(10):
        writer.enqueue(candidate(minute))
    await run_until(writer, lambda: writer.written == 10)
    assert database.batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert (writer.waiting, handed_back) == (0, [])


async def test_full_buffer_hands_back_the_oldest_minutes(
    database: Database, handed_back: list[tuple[int, str]]
) -> None:
    writer = writer_of(handed_back, buffer_rows=3)
    for minute in range(5):
        writer.enqueue(candidate(minute))
        assert writer.waiting <= 3
    cause = "write buffer full"
    assert handed_back == [(0, cause), (1, cause)]
    assert writer.overflowed == 2
    await writer.flush()
    assert database.written == [2, 3, 4]


async def test_refused_row_does_not_affect_other_rows(
    database: Database, log: CapturingLogger, handed_back: list[tuple[int, str]]
) -> None:
    writer = writer_of(handed_back)
    database.refused = {2, 7}
    for minute in range(8):
        writer.enqueue(candidate(minute))
    await run_until(writer, lambda: writer.waiting == 0 and len(handed_back) == 2)
    assert database.written == [0, 1, 3, 4, 5, 6]
    assert handed_back == [(2, "refused by the database"), (7, "refused by the database")]
    refusals = [call.kwargs for call in log.calls if call.args[0] == "candle_refused"]
    assert [refusal["open_time"] for refusal in refusals] == [
        "2023-11-14T22:15:00+00:00",
        "2023-11-14T22:20:00+00:00",
    ]
    assert "a check constraint says no" in refusals[0]["error"]


async def test_writes_keep_their_order_after_a_reconnect(
    database: Database, log: CapturingLogger, handed_back: list[tuple[int, str]]
) -> None:
    writer = writer_of(handed_back, batch_size=2)
    database.failures = [TransientError("the server is away")] * 3
    for minute in range(5):
        writer.enqueue(candidate(minute))
    await run_until(writer, lambda: "backlog_written" in events(log))
    assert database.batches == [[0, 1], [2, 3], [4]]
    assert handed_back == []
    assert events(log) == [*["write_postponed"] * 3, "backlog_written"]
    assert log.calls[0].kwargs["waiting"] == 5
    assert [connection.closed for connection in database.connections] == [True] * 3 + [False]


@pytest.mark.parametrize(("later_s", "reconnections"), [(0, 0), (1, 1)], ids=["same", "other"])
async def test_first_write_to_another_server_counts_as_a_reconnection(
    database: Database, handed_back: list[tuple[int, str]], later_s: int, reconnections: int
) -> None:
    """The server of the first write may lack rows that were read before it."""
    calls: list[int] = []
    writer = writer_of(handed_back, on_reconnected=lambda: calls.append(writer.waiting))
    writer.expect_server(database.started)
    database.started += timedelta(seconds=later_s)
    writer.enqueue(candidate(0))
    await run_until(writer, lambda: writer.written == 1 and len(calls) == reconnections)
    writer.enqueue(candidate(1))
    await run_until(writer, lambda: writer.written == 2)
    assert calls == [0] * reconnections


async def test_connecting_is_retried(
    database: Database,
    log: CapturingLogger,
    handed_back: list[tuple[int, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = [TransientError("refused"), TransientError("refused")]

    async def connect(url: str, **_: object) -> Connection:
        if answers:
            raise answers.pop()
        return await database.connect(url)

    monkeypatch.setattr(module, "connect_async", connect)
    writer = writer_of(handed_back)
    writer.enqueue(candidate(0))
    await run_until(writer, lambda: "backlog_written" in events(log))
    assert events(log) == [*["write_postponed"] * 2, "backlog_written"]


async def test_hanging_write_is_cancelled_and_retried(
    database: Database,
    log: CapturingLogger,
    handed_back: list[tuple[int, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "WRITE_TIMEOUT_S", 0.05)
    database.gate = asyncio.Event()
    writer = writer_of(handed_back)
    writer.enqueue(candidate(0))
    await run_until(writer, lambda: "write_postponed" in events(log))
    assert writer.waiting == 1
    database.gate = None
    await run_until(writer, lambda: writer.written == 1)
    assert database.written == [0]


async def test_overflow_during_a_write_does_not_drop_rows_being_written(
    database: Database, handed_back: list[tuple[int, str]]
) -> None:
    database.gate = asyncio.Event()
    writer = writer_of(handed_back, batch_size=2, buffer_rows=3)
    for minute in range(3):
        writer.enqueue(candidate(minute))
    task = asyncio.create_task(writer.run())
    await asyncio.wait_for(database.is_writing.wait(), 30)  # 0 and 1 are under way
    for minute in range(3, 7):
        writer.enqueue(candidate(minute))
    database.gate.set()
    async with asyncio.timeout(30):
        while writer.written < 5:
            await asyncio.sleep(0.002)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert database.written == [0, 1, 4, 5, 6]
    assert [minute for minute, _ in handed_back] == [2, 3]


async def test_flush_repeats_a_cancelled_write(
    database: Database, handed_back: list[tuple[int, str]]
) -> None:
    database.gate = asyncio.Event()
    writer = writer_of(handed_back)
    for minute in range(3):
        writer.enqueue(candidate(minute))
    await run_until(writer, database.is_writing.is_set)
    assert writer.waiting == 3
    database.gate = None
    await writer.flush()
    assert (database.written, writer.waiting) == ([0, 1, 2], 0)
    assert len(database.connections) == 2  # on the first one a statement may be under way still
    assert all(connection.closed for connection in database.connections)


async def test_flush_without_rows_does_nothing(
    database: Database, log: CapturingLogger, handed_back: list[tuple[int, str]]
) -> None:
    await writer_of(handed_back, Aggregator()).flush()
    assert database.connections == []
    assert (log.calls, handed_back) == ([], [])


async def test_flush_raises_if_the_database_is_unavailable(
    database: Database, handed_back: list[tuple[int, str]]
) -> None:
    writer = writer_of(handed_back)
    database.failures = [TransientError("the server is away")]
    writer.enqueue(candidate(0))
    with pytest.raises(TransientError, match="the server is away"):
        await writer.flush()
    assert writer.waiting == 1


async def test_open_candles_are_written_once_a_change_and_again_after_a_failure(
    database: Database, handed_back: list[tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LIVE_INTERVAL_S", 0.0)
    database.failures = [TransientError("the server is away")]
    aggregator = Aggregator()
    writer = writer_of(handed_back, aggregator)
    await run_until(writer, lambda: database.live == [[99]])
    assert not aggregator.is_dirty
    aggregator.is_dirty = True
    await run_until(writer, lambda: len(database.live) == 2)
    assert len(database.connections) == 2


async def test_refused_open_candles_delay_no_closed_ones(
    database: Database,
    log: CapturingLogger,
    handed_back: list[tuple[int, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "LIVE_INTERVAL_S", 0.0)
    database.refuses_live = True
    writer = writer_of(handed_back, Aggregator())
    await run_until(writer, lambda: bool(log.calls))
    writer.enqueue(candidate(0))
    await run_until(writer, lambda: writer.written == 1)
    assert set(events(log)) == {"live_candles_refused"}
    assert handed_back == []


@pytest.mark.parametrize("steps", range(12))
async def test_write_can_be_stopped_at_any_moment(
    database: Database, handed_back: list[tuple[int, str]], steps: int
) -> None:
    writer = writer_of(handed_back, flush_timeout_s=30)
    task = asyncio.create_task(writer.run())
    await asyncio.sleep(0.01)  # it waits for something to write
    writer.enqueue(candidate(0))
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task}, timeout=1)
    heard = task.cancelled()
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=0.1)
    assert heard
    await writer.flush()
    assert database.written == [0]


async def test_only_stored_candles_are_reported_as_stored(
    database: Database, log: CapturingLogger, handed_back: list[tuple[int, str]]
) -> None:
    told: list[int] = []
    writer = writer_of(
        handed_back,
        batch_size=4,
        on_stored=lambda offers: told.extend(
            number_of(offer.candle.open_time_us) for offer in offers
        ),
    )
    database.refused = {2}
    database.failures = [TransientError("the server is away")]
    for minute in range(6):
        writer.enqueue(candidate(minute))
    await run_until(writer, lambda: len(told) == 5 and bool(handed_back))
    assert told == [0, 1, 3, 4, 5]


async def test_permanent_error_of_a_statement_refuses_no_row(
    database: Database, log: CapturingLogger, handed_back: list[tuple[int, str]]
) -> None:
    gone = PermanentError("relation market.candles_1m does not exist")
    gone.__cause__ = errors.UndefinedTable("gone")
    database.failures = [gone, gone]
    writer = writer_of(handed_back)
    for minute in range(3):
        writer.enqueue(candidate(minute))
    await run_until(writer, lambda: writer.written == 3)
    assert database.batches == [[0, 1, 2]]
    assert handed_back == []
    assert events(log).count("write_postponed") == 2


async def test_refused_login_is_fatal_only_at_startup(
    database: Database,
    log: CapturingLogger,
    handed_back: list[tuple[int, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refusals = [PermanentError("password authentication failed")]

    async def connect(url: str, **_: object) -> Connection:
        if refusals and database.connections:
            raise refusals.pop()
        return await database.connect(url)

    monkeypatch.setattr(module, "connect_async", connect)
    writer = writer_of(handed_back)
    database.failures = [TransientError("shutting down")]
    writer.enqueue(candidate(0))
    await run_until(writer, lambda: "backlog_written" in events(log))
    assert events(log) == [*["write_postponed"] * 2, "backlog_written"]

    async def refuse(url: str, **_: object) -> Connection:
        raise PermanentError("password authentication failed")

    monkeypatch.setattr(module, "connect_async", refuse)
    first = writer_of(handed_back)
    first.enqueue(candidate(0))
    with pytest.raises(PermanentError, match="password"):
        await asyncio.wait_for(first.run(), 10)


async def test_end_of_an_outage_is_logged_once_the_backlog_is_written(
    database: Database, log: CapturingLogger, handed_back: list[tuple[int, str]]
) -> None:
    database.failures = [TransientError("the server is away")] * 2
    writer = writer_of(handed_back, batch_size=10)
    for minute in range(25):
        writer.enqueue(candidate(minute))
    await run_until(writer, lambda: "backlog_written" in events(log))
    told = log.calls[-1].kwargs
    assert told["rows"] == 25
    assert told["away_s"] >= 0.1
    assert told["catch_up_s"] < 30


async def test_write_timeout_applies_to_each_batch(
    database: Database,
    log: CapturingLogger,
    handed_back: list[tuple[int, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A backlog may take longer than one write is given."""
    monkeypatch.setattr(module, "WRITE_TIMEOUT_S", 0.5)
    store = database.store

    async def slow(connection: Connection, offers: Sequence[CandleCandidate]) -> None:
        await asyncio.sleep(0.1)
        await store(connection, offers)

    monkeypatch.setattr(module, "store_async", slow)
    writer = writer_of(handed_back, batch_size=1)
    for minute in range(9):
        writer.enqueue(candidate(minute))
    await run_until(writer, lambda: writer.written == 9)
    assert log.calls == []
