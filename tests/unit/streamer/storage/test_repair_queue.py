from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg import errors
from structlog.testing import CapturingLogger

from include.backoff import Backoff
from include.domain.timeframes import MINUTE_US, SECOND_US
from include.errors import (
    PermanentError,
    RateLimitedError,
    RefusedAddressError,
    TransientError,
)
from include.jobs.klines.pieces import LoadCounts
from streamer.runtime.refusals import LASTING_AFTER
from streamer.storage import repair_queue as module
from streamer.storage.repair_queue import RepairQueue, RepairRequest

NOW_US = 1_700_000_000_000_000 // MINUTE_US * MINUTE_US


class Exchange:
    """Answers repairs as set up and records the requests."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.asked: list[tuple[str, int, int]] = []
        self.given_up: list[tuple[RepairRequest, str]] = []
        self.now_us = NOW_US

    def repair(self, symbol: str, start_us: int, end_us: int) -> LoadCounts:
        self.asked.append(
            (symbol, (start_us - NOW_US) // MINUTE_US, (end_us - NOW_US) // MINUTE_US)
        )
        if self.errors:
            raise self.errors.pop(0)
        return LoadCounts(offered=(end_us - start_us) // MINUTE_US)

    def queue(self) -> RepairQueue:
        return RepairQueue(
            repair=self.repair,
            exchange_us=lambda: self.now_us,
            on_given_up=lambda request, why: self.given_up.append((request, why)),
        )


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_S", 0.005)
    monkeypatch.setattr(module, "BACKOFF", Backoff(first_s=0.01, max_s=0.01))


def of_database(kind: type[Exception]) -> Exception:
    error = kind("PostgreSQL is away")
    error.__cause__ = errors.AdminShutdown()
    return error


async def run_until(queue: RepairQueue, done: Callable[[], bool]) -> None:
    task = asyncio.create_task(queue.run())
    async with asyncio.timeout(30):
        while not done():
            await asyncio.sleep(0.002)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def ask(queue: RepairQueue, symbol: str, first: int, last: int) -> None:
    queue.request(symbol, NOW_US + first * MINUTE_US, NOW_US + last * MINUTE_US, "test")


async def test_adjacent_minutes_are_requested_together() -> None:
    exchange = Exchange()
    queue = exchange.queue()
    for minute in (-10, -9, -8, -5):
        ask(queue, "A", minute, minute + 1)
    assert queue.waiting_minutes == 4
    await run_until(queue, lambda: queue.waiting_minutes == 0 and queue.repaired_minutes == 4)
    assert sorted(exchange.asked) == [("A", -10, -7), ("A", -5, -4)]


async def test_minute_waits_until_rest_has_all_its_trades() -> None:
    exchange = Exchange()
    queue = exchange.queue()
    ask(queue, "A", -2, 0)
    await run_until(queue, lambda: queue.repaired_minutes == 1)
    assert exchange.asked == [("A", -2, -1)]
    exchange.now_us += 31 * SECOND_US
    await run_until(queue, lambda: queue.repaired_minutes == 2)
    assert exchange.asked[1] == ("A", -1, 0)


async def test_silent_symbol_waits_longer() -> None:
    exchange = Exchange()
    queue = exchange.queue()
    patience = {"A": 5 * MINUTE_US}
    queue.patience_us = lambda symbol: patience.get(symbol, 0)
    ask(queue, "A", -8, -1)
    ask(queue, "B", -8, -1)
    await run_until(queue, lambda: len(exchange.asked) == 2)
    assert sorted(exchange.asked) == [("A", -8, -6), ("B", -8, -1)]
    patience.clear()
    await run_until(queue, lambda: queue.waiting_minutes == 0)
    assert exchange.asked[2:] == [("A", -6, -1)]


async def test_long_range_is_requested_in_parts() -> None:
    exchange = Exchange()
    queue = exchange.queue()
    ask(queue, "A", -2500, -10)
    await run_until(queue, lambda: queue.repaired_minutes == 2490)
    assert [end - start for _, start, end in exchange.asked] == [1000, 1000, 490]


async def test_transient_failure_is_retried_while_others_continue() -> None:
    exchange = Exchange(TransientError("away"), RateLimitedError("429", retry_after_s=0.0))
    queue = exchange.queue()
    ask(queue, "A", -10, -9)
    ask(queue, "B", -10, -9)
    await run_until(queue, lambda: queue.repaired_minutes == 2)
    assert exchange.given_up == []


async def test_failed_range_stays_queued_while_another_of_its_symbol_is_repaired(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "BACKOFF", Backoff(first_s=0.3, max_s=0.3, min_s=0.3))
    exchange = Exchange(TransientError("away"))
    queue = exchange.queue()
    ask(queue, "A", -10, -8)
    await run_until(queue, lambda: queue.failures == 1)
    ask(queue, "A", -5, -4)
    await run_until(queue, lambda: queue.repaired_minutes == 1)
    assert (exchange.asked[1:], queue.waiting_minutes) == ([("A", -5, -4)], 2)
    await run_until(queue, lambda: queue.repaired_minutes == 3)
    assert exchange.asked[2:] == [("A", -10, -8)]


async def test_range_that_fails_leaves_waiting_ranges_of_its_symbol_queued() -> None:
    exchange = Exchange(TransientError("away"))
    queue = exchange.queue()
    ask(queue, "A", -10, -8)
    ask(queue, "A", -1, 0)  # not complete at REST yet
    await run_until(queue, lambda: queue.repaired_minutes == 2)
    assert queue.waiting_minutes == 1
    exchange.now_us += 31 * SECOND_US
    await run_until(queue, lambda: queue.repaired_minutes == 3)
    assert exchange.asked == [("A", -10, -8), ("A", -10, -8), ("A", -1, 0)]


@settings(max_examples=25)
@given(
    ranges=st.lists(st.tuples(st.integers(-60, -10), st.integers(1, 4)), min_size=1, max_size=8),
    failing=st.lists(st.booleans(), max_size=12),
)
def test_every_requested_minute_is_repaired_despite_failing_calls(
    ranges: list[tuple[int, int]], failing: list[bool]
) -> None:
    left, repaired = list(failing), set[int]()
    exchange = Exchange()

    def repair(symbol: str, start_us: int, end_us: int) -> LoadCounts:
        if left and left.pop():
            raise TransientError("away")
        repaired.update(range((start_us - NOW_US) // MINUTE_US, (end_us - NOW_US) // MINUTE_US))
        return LoadCounts()

    queue = exchange.queue()
    queue.repair = repair
    wanted = {minute for first, size in ranges for minute in range(first, first + size)}
    for first, size in ranges:
        ask(queue, "A", first, first + size)
    asyncio.run(run_until(queue, lambda: repaired == wanted and not queue.waiting_minutes))
    assert exchange.given_up == []


async def test_new_minutes_do_not_inherit_the_failures_of_their_neighbours() -> None:
    exchange = Exchange(*[TransientError("away")] * (module.MAX_ATTEMPTS - 1))
    queue = exchange.queue()
    ask(queue, "A", -10, -9)
    await run_until(queue, lambda: queue.failures == module.MAX_ATTEMPTS - 1)
    exchange.errors = [TransientError("away")]
    ask(queue, "A", -11, -8)
    assert [one.failures.exchange for one in queue._requests["A"]] == [
        0, module.MAX_ATTEMPTS - 1, 0,
    ]  # fmt: skip
    await run_until(queue, lambda: queue.repaired_minutes + queue.given_up_minutes == 3)
    given_up = [(one.start_us, one.end_us) for one, _ in exchange.given_up]
    assert given_up in ([], [(NOW_US - 10 * MINUTE_US, NOW_US - 9 * MINUTE_US)])


async def test_refused_address_pauses_its_market_until_it_is_served_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "REFUSED_BACKOFF", Backoff(first_s=0.1, max_s=0.1, min_s=0.1))
    log = CapturingLogger()
    monkeypatch.setattr(module, "log", log)
    exchange = Exchange(*[RefusedAddressError("403")] * 3)
    queue = exchange.queue()
    ask(queue, "A", -10, -8)
    await run_until(queue, lambda: queue.failures == 1)
    for number in range(5):
        ask(queue, f"B{number}", -10, -9)
    ask(queue, "C.P", -10, -9)  # of another market
    await run_until(queue, lambda: queue.repaired_minutes == 8)
    assert [symbol for symbol, *_ in exchange.asked].count("C.P") == 2
    assert len(exchange.asked) <= 11
    assert exchange.given_up == []
    assert [call.args[0] for call in log.calls].count("repair_postponed") == 2  # one each market


async def test_lasting_refusal_leaves_the_minutes_to_the_dag(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "REFUSED_BACKOFF", Backoff(first_s=0.01, max_s=0.01, min_s=0.01))
    exchange = Exchange(*[RefusedAddressError("451")] * 99)
    queue = exchange.queue()
    ask(queue, "A", -10, -8)
    await run_until(queue, lambda: bool(exchange.given_up))
    [(request, reason)] = exchange.given_up
    assert (request.symbol, reason) == ("A", "451")
    assert len(exchange.asked) == LASTING_AFTER


async def test_repaired_minutes_are_those_that_rest_returned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = CapturingLogger()
    monkeypatch.setattr(module, "log", log)
    queue = Exchange().queue()
    queue.repair = lambda *_: LoadCounts(offered=3, outage_minutes=2)
    ask(queue, "A", -20, -10)
    await run_until(queue, lambda: queue.repaired_minutes == 5)
    [call] = log.calls
    told = call.kwargs
    assert (told["requested"], told["minutes"], told["outage_minutes"]) == (10, 3, 2)


async def test_permanent_failure_is_reported_and_not_repeated() -> None:
    exchange = Exchange(PermanentError("no such symbol"))
    queue = exchange.queue()
    ask(queue, "A", -10, -9)
    await run_until(queue, lambda: bool(exchange.given_up))
    assert exchange.given_up[0][1] == "no such symbol"
    assert queue.waiting_minutes == 0


async def test_attempts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ATTEMPTS", 3)
    exchange = Exchange(*[TransientError("away")] * 3)
    queue = exchange.queue()
    ask(queue, "A", -10, -9)
    await run_until(queue, lambda: bool(exchange.given_up))
    assert len(exchange.asked) == 3


@pytest.mark.parametrize("kind", [TransientError, PermanentError])
async def test_unavailable_database_uses_up_no_attempt(
    monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    """Otherwise an outage of minutes would give up minutes that the exchange has."""
    monkeypatch.setattr(module, "MAX_ATTEMPTS", 3)
    exchange = Exchange(*[of_database(kind) for _ in range(5)])
    exchange.errors[3:3] = [TransientError("the exchange is away")] * 2
    queue = exchange.queue()
    ask(queue, "A", -10, -9)
    await run_until(queue, lambda: queue.repaired_minutes == 1)
    assert (len(exchange.asked), queue.failures, exchange.given_up) == (8, 7, [])


async def test_wait_for_a_database_grows_with_each_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[int] = []

    class Waits:
        def wait_s(self, failures: int, error: object) -> float:
            waits.append(failures)
            return 0.01

    monkeypatch.setattr(module, "BACKOFF", Waits())
    exchange = Exchange(*[of_database(TransientError) for _ in range(3)])
    queue = exchange.queue()
    ask(queue, "A", -10, -9)
    await run_until(queue, lambda: queue.repaired_minutes == 1)
    assert waits == [1, 2, 3]


async def test_refused_value_is_given_up_without_retry() -> None:
    refused = PermanentError("out of range")
    refused.__cause__ = errors.NumericValueOutOfRange()
    exchange = Exchange(refused)
    queue = exchange.queue()
    ask(queue, "A", -10, -9)
    await run_until(queue, lambda: bool(exchange.given_up))
    assert len(exchange.asked) == 1


async def test_hanging_call_is_retried_while_others_continue(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "CALL_TIMEOUT_S", 0.05)
    exchange, leave = Exchange(), threading.Event()
    queue = exchange.queue()

    def repair(symbol: str, start_us: int, end_us: int) -> LoadCounts:
        exchange.repair(symbol, start_us, end_us)
        if exchange.asked == [("A", -10, -9)]:
            monkeypatch.setattr(module, "CALL_TIMEOUT_S", 30)  # the next one has time
            assert leave.wait(30)
        return LoadCounts(offered=1)

    queue.repair = repair
    ask(queue, "A", -10, -9)
    try:
        await run_until(queue, lambda: queue.repaired_minutes == 1)
    finally:
        leave.set()
    assert exchange.asked == [("A", -10, -9)] * 2
    assert (queue.failures, exchange.given_up) == (1, [])


def test_ranges_of_a_symbol_are_bounded_without_losing_minutes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_RANGES", 3)
    queue = Exchange().queue()
    for minute in (-90, -10, -50, -14, -80):
        ask(queue, "A", minute, minute + 1)
    ask(queue, "B", -40, -39)
    held = [
        ((one.start_us - NOW_US) // MINUTE_US, (one.end_us - NOW_US) // MINUTE_US)
        for one in queue._requests["A"]
    ]
    assert held == [(-90, -79), (-50, -49), (-14, -9)]
    assert queue.waiting_minutes == 11 + 1 + 5 + 1


async def test_concurrent_calls_are_bounded() -> None:
    at_once, inside, leave = [0], threading.Semaphore(0), threading.Event()

    def repair(symbol: str, start_us: int, end_us: int) -> LoadCounts:
        at_once[0] += 1
        inside.release()
        assert leave.wait(10)
        return LoadCounts(offered=1)

    queue = RepairQueue(repair, lambda: NOW_US, lambda *_: None)
    for number in range(module.MAX_CALLS + 3):
        ask(queue, f"S{number}", -9, -8)
    task = asyncio.create_task(queue.run())
    for _ in range(module.MAX_CALLS):
        assert await asyncio.to_thread(inside.acquire, timeout=10)
    assert not await asyncio.to_thread(inside.acquire, timeout=0.05)
    assert at_once == [module.MAX_CALLS]
    leave.set()
    async with asyncio.timeout(30):
        while queue.repaired_minutes < module.MAX_CALLS + 3:
            await asyncio.sleep(0.002)
    assert queue.waiting_minutes == 0
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_connections_are_released_when_the_queue_is_empty() -> None:
    exchange = Exchange(TransientError("later"))
    queue, closed = exchange.queue(), []
    queue.release = lambda: closed.append(len(exchange.asked))
    for symbol in ("BTCUSDT", "ETHUSDT"):
        ask(queue, symbol, -9, -8)
    await run_until(queue, lambda: closed[-1:] == [3])
    assert queue.repaired_minutes == 2
    ask(queue, "BTCUSDT", -7, -6)
    await run_until(queue, lambda: closed[-1] == 4)
