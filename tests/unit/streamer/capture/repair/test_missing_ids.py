"""Missing trades are requested until they arrive, or given up with a reason."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from psycopg import errors as refusals
from structlog.testing import capture_logs

from include.backoff import Backoff
from include.domain.instruments import Market
from include.domain.timeframes import DAY_US
from include.errors import PermanentError, RefusedAddressError, TransientError
from include.jobs.trades.by_id import FetchCounts
from include.store.postgres.pools import translated
from streamer.capture.intake.ids import IdSequence, MissingRange
from streamer.capture.repair import missing_ids as module
from streamer.capture.repair import trade_calls
from streamer.capture.repair.missing_ids import (
    ABSENT,
    MAX_IDS_AT_ONCE,
    NOT_RUNNING,
    REUSED,
    MissingIdsQueue,
)
from streamer.capture.repair.trade_calls import QUICK_ATTEMPTS, SLOW_BACKOFF
from streamer.runtime.refusals import LASTING_AFTER


class Exchange:
    """Answers as configured and records the requests."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.asked: list[tuple[str, str, int, int]] = []
        self.given_up: list[tuple[int, int, str]] = []
        self.absent = 0
        self.first_us: int | None = None

    def fetch(
        self, dataset: str, symbol: str, first_id: int, last_id: int, until_us: int
    ) -> FetchCounts:
        assert until_us in (20, 15)
        self.asked.append((dataset, symbol, first_id, last_id))
        if self.errors:
            raise self.errors.pop(0)
        served = last_id - first_id + 1 - self.absent
        return FetchCounts(
            pages=1, void=0, written=served, absent=self.absent, first_us=self.first_us
        )

    def give_up(
        self, _dataset: str, _symbol: str, missing_range: MissingRange, reason: str
    ) -> None:
        self.given_up.append((missing_range.first_id, missing_range.last_id, reason))


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_S", 0.005)
    monkeypatch.setattr(trade_calls, "BACKOFF", Backoff(first_s=0.001, max_s=0.001))
    monkeypatch.setattr(trade_calls, "SLOW_BACKOFF", Backoff(first_s=0.001, max_s=0.001))


def of_database(error: psycopg.Error) -> Exception:
    """As the store returns it."""
    try:
        with translated("postgresql://me@here/candles"):
            raise error
    except (TransientError, PermanentError) as seen:
        return seen


def missing(first_id: int, last_id: int) -> IdSequence:
    ids = IdSequence(late_s=0.0)
    ids.miss(MissingRange(first_id, last_id, 10, 20))
    return ids


async def run_until(filler: MissingIdsQueue, done: Callable[[], bool]) -> None:
    task = asyncio.create_task(filler.run())
    async with asyncio.timeout(30):
        while not done():
            await asyncio.sleep(0.002)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_missing_range_is_fetched_once() -> None:
    exchange = Exchange()
    sequences = {("agg_trades", "A"): missing(3, 7)}
    filler = MissingIdsQueue(sequences, exchange.fetch, exchange.give_up)
    assert filler.waiting_ids == 5
    await run_until(filler, lambda: filler.filled_rows == 5)
    assert exchange.asked == [("agg_trades", "A", 3, 7)]
    assert filler.waiting_ids == 0


def slow_waits(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float]]:
    """Bounds of the long waits, which take no time."""
    slowly: list[tuple[float, float]] = []

    def drawn(min_s: float, max_s: float) -> float:
        slowly.append((min_s, max_s))
        return 0.001

    monkeypatch.setattr(trade_calls, "SLOW_BACKOFF", replace(SLOW_BACKOFF, uniform=drawn))
    return slowly


async def test_trades_not_served_yet_are_requested_again() -> None:
    exchange = Exchange(TransientError("not yet"), TransientError("not yet"))
    filler = MissingIdsQueue({("trades", "A"): missing(3, 7)}, exchange.fetch, exchange.give_up)
    await run_until(filler, lambda: filler.filled_rows == 5)
    assert len(exchange.asked) == 3
    assert exchange.given_up == []


async def test_exchange_outage_of_hours_is_retried_every_ten_minutes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slowly = slow_waits(monkeypatch)
    exchange = Exchange(*[TransientError("503")] * (QUICK_ATTEMPTS + 3))
    filler = MissingIdsQueue(
        {("trades", "A"): missing(3, 7)}, exchange.fetch, exchange.give_up, lambda: -DAY_US
    )
    with capture_logs() as logged:
        await run_until(filler, lambda: filler.filled_rows == 5)
    assert len(exchange.asked) == QUICK_ATTEMPTS + 4
    assert slowly == [(540, 660)] * 4
    assert exchange.given_up == []
    (told,) = [one for one in logged if one["log_level"] == "warning"]
    assert (told["event"], told["first_id"], told["last_id"]) == ("trades_overdue", 3, 7)


async def test_firewall_refusal_pauses_requests_for_minutes_and_gives_nothing_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slowly = slow_waits(monkeypatch)
    exchange = Exchange(*[RefusedAddressError("403")] * 2)
    sequences = {("trades", "A"): missing(3, 7), ("trades", "B"): missing(1, 2)}
    filler = MissingIdsQueue(sequences, exchange.fetch, exchange.give_up, horizon_us=lambda: DAY_US)
    with capture_logs() as logged:
        await run_until(filler, lambda: filler.filled_rows == 7)
    assert slowly == [(540, 660)] * 2
    assert exchange.given_up == []
    told = [one for one in logged if one["log_level"] == "warning"]
    assert [one["event"] for one in told] == ["trades_overdue"]


async def test_refused_market_gets_no_further_requests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trade_calls, "SLOW_BACKOFF", Backoff(first_s=60, max_s=60, min_s=60))
    exchange = Exchange(RefusedAddressError("403"))
    symbols = ("A", "B", "A.P")
    sequences = {("agg_trades", name): missing(3, 7) for name in symbols}
    filler = MissingIdsQueue(sequences, exchange.fetch, exchange.give_up)
    await run_until(filler, lambda: filler.filled_rows == 5)
    assert [asked[1] for asked in exchange.asked] == ["A", "A.P"]
    assert filler.waiting_ids == 10


def is_refused_for_long(filler: MissingIdsQueue) -> bool:
    refusal = filler.calls.refusals.at(Market.SPOT, asyncio.get_running_loop().time())
    return refusal is not None and refusal.is_lasting


async def test_ids_of_a_permanently_refusing_market_are_given_up_without_requests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits = [0.001] * (LASTING_AFTER - 1)

    def drawn(_min_s: float, _max_s: float) -> float:
        return waits.pop() if waits else 60.0

    monkeypatch.setattr(trade_calls, "SLOW_BACKOFF", replace(SLOW_BACKOFF, uniform=drawn))
    exchange, horizon_us = Exchange(*[RefusedAddressError("451")] * 1_000), [-DAY_US]
    sequences = {("agg_trades", f"S{n}"): missing(3, 7) for n in range(100)}
    filler = MissingIdsQueue(sequences, exchange.fetch, exchange.give_up, lambda: horizon_us[0])
    await run_until(filler, lambda: is_refused_for_long(filler))
    assert exchange.given_up == []
    horizon_us[0] = DAY_US
    await run_until(filler, lambda: len(exchange.given_up) == 100)
    assert exchange.given_up == [(3, 7, "451")] * 100
    assert len(exchange.asked) == LASTING_AFTER
    assert filler.missing == []


async def test_old_missing_ids_survive_a_short_refusal_at_startup(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trade_calls, "SLOW_BACKOFF", Backoff(first_s=60, max_s=60, min_s=60))
    exchange = Exchange(RefusedAddressError("403"), *[TransientError("not yet")] * 3)
    sequences = {("agg_trades", name): missing(3, 7) for name in ("A", "B", "A.P")}
    filler = MissingIdsQueue(sequences, exchange.fetch, exchange.give_up, lambda: DAY_US)
    await run_until(filler, lambda: filler.filled_rows == 5)  # of the other market, at last
    assert exchange.given_up == []
    assert filler.waiting_ids == 10


async def test_ids_are_requested_until_they_pass_the_start_horizon() -> None:
    exchange = Exchange(*[TransientError("never")] * 10_000)
    filler = MissingIdsQueue(
        {("trades", "A"): missing(3, 7)},
        exchange.fetch,
        exchange.give_up,
        horizon_us=lambda: 20 - 300_000,  # passes their end in 0.3 s
    )
    await run_until(filler, lambda: bool(exchange.given_up))
    assert exchange.given_up == [(3, 7, "never")]
    assert len(exchange.asked) >= QUICK_ATTEMPTS
    assert filler.given_up == 5
    assert filler.waiting_ids == 0


async def test_database_outage_uses_up_no_attempts() -> None:
    away = of_database(psycopg.OperationalError("connection refused"))
    refused = of_database(refusals.InsufficientPrivilege("permission denied"))
    exchange = Exchange(*[TransientError("503")] * (QUICK_ATTEMPTS - 1), *[away, refused] * 20)
    filler = MissingIdsQueue({("trades", "A"): missing(3, 7)}, exchange.fetch, exchange.give_up)
    await run_until(filler, lambda: filler.filled_rows == 5)
    assert exchange.given_up == []


async def test_hanging_call_is_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trade_calls, "CALL_TIMEOUT_S", 0.02)
    exchange, let_go = Exchange(), threading.Event()

    def hang_once(*asked: Any) -> FetchCounts:
        if not exchange.asked:
            exchange.asked.append(asked[:4])
            filler.calls.timeout_s = 30  # the next one has time
            let_go.wait(30)
        return exchange.fetch(*asked)

    filler = MissingIdsQueue({("trades", "A"): missing(3, 7)}, hang_once, exchange.give_up)
    await run_until(filler, lambda: filler.filled_rows == 5)
    let_go.set()
    assert exchange.given_up == []


async def test_row_refused_by_the_database_is_given_up() -> None:
    exchange = Exchange(of_database(refusals.NumericValueOutOfRange("too great")))
    filler = MissingIdsQueue({("trades", "A"): missing(3, 7)}, exchange.fetch, exchange.give_up)
    await run_until(filler, lambda: bool(exchange.given_up))
    assert len(exchange.asked) == 1


async def test_unserved_ids_are_given_up_immediately_and_others_continue() -> None:
    exchange = Exchange(PermanentError("no such method"))
    sequences = {("trades", "A"): missing(3, 7), ("trades", "B"): missing(1, 2)}
    filler = MissingIdsQueue(sequences, exchange.fetch, exchange.give_up)
    await run_until(filler, lambda: filler.filled_rows == 2)
    assert exchange.given_up == [(3, 7, "no such method")]


async def test_ids_that_the_exchange_skips_are_reported() -> None:
    exchange = Exchange()
    exchange.absent = 2
    filler = MissingIdsQueue({("trades", "A"): missing(3, 7)}, exchange.fetch, exchange.give_up)
    await run_until(filler, lambda: filler.filled_rows == 3)
    assert exchange.given_up == [(3, 4, ABSENT)]


async def test_long_range_is_requested_backwards_to_the_horizon() -> None:
    exchange = Exchange()
    exchange.first_us = 15
    last_id = 3 * MAX_IDS_AT_ONCE
    filler = MissingIdsQueue(
        {("trades", "A"): missing(1, last_id)},
        exchange.fetch,
        exchange.give_up,
        horizon_us=lambda: 16 if len(exchange.asked) == 2 else 14,
    )
    await run_until(filler, lambda: bool(exchange.given_up))
    assert [asked[2:] for asked in exchange.asked] == [
        (last_id - MAX_IDS_AT_ONCE + 1, last_id),
        (last_id - 2 * MAX_IDS_AT_ONCE + 1, last_id - MAX_IDS_AT_ONCE),
    ]
    assert exchange.given_up == [(1, MAX_IDS_AT_ONCE, NOT_RUNNING)]
    assert filler.waiting_ids == 0


async def test_fetch_that_failed_after_some_pages_continues_there_with_new_attempts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Under a tight request weight every second request may be refused."""
    slowly = slow_waits(monkeypatch)
    pages = 20
    asked: list[tuple[int, int]] = []

    def fetch(_dataset: str, _symbol: str, first_id: int, last_id: int, _until: int) -> FetchCounts:
        asked.append((first_id, last_id))
        if len(asked) % 2:
            raise TransientError("limited")
        next_id = first_id + 1_000
        return FetchCounts(1, 0, 1_000, first_us=15, next_id=next_id if next_id < last_id else None)

    exchange = Exchange()
    filler = MissingIdsQueue({("trades", "A"): missing(1, pages * 1000)}, fetch, exchange.give_up)
    await run_until(filler, lambda: filler.filled_rows == pages * 1000)
    await run_until(filler, lambda: not filler.waiting_ids)
    assert asked[1::2] == [(1 + 1_000 * page, pages * 1_000) for page in range(pages)]
    assert slowly == []


async def test_short_range_is_requested_at_any_age() -> None:
    exchange = Exchange()
    exchange.first_us = 15
    filler = MissingIdsQueue(
        {("trades", "A"): missing(3, 7)}, exchange.fetch, exchange.give_up, horizon_us=lambda: 18
    )
    await run_until(filler, lambda: filler.filled_rows == 5)
    assert exchange.given_up == []


async def test_missing_ids_of_a_former_instrument_are_reported_without_request() -> None:
    exchange = Exchange()
    ids = missing(3, 7)
    ids.miss(MissingRange(9, 8, 20, 90))
    filler = MissingIdsQueue({("trades", "A"): ids}, exchange.fetch, exchange.give_up)
    await run_until(filler, lambda: len(exchange.given_up) == 2)
    assert exchange.given_up == [(3, 7, REUSED), (9, 8, REUSED)]
    assert exchange.asked == []
    assert filler.given_up == 5


def all_missing(filler: MissingIdsQueue) -> list[tuple[int, int, int]]:
    return [
        (missing_range.first_id, missing_range.last_id, missing_range.from_us)
        for _, _, missing_range in filler.missing
    ]


async def test_ids_stay_missing_while_requested_postponed_or_retried() -> None:
    last_id = 3 * MAX_IDS_AT_ONCE
    seen: list[list[tuple[int, int, int]]] = []
    exchange = Exchange(TransientError("not yet"), RefusedAddressError("403"))
    exchange.first_us = 15

    def fetch(*asked: Any) -> FetchCounts:
        seen.append(all_missing(filler))
        return exchange.fetch(*asked)

    filler = MissingIdsQueue({("trades", "A"): missing(1, last_id)}, fetch, exchange.give_up)
    assert all_missing(filler) == [(1, last_id, 10)]
    await run_until(filler, lambda: filler.filled_rows == last_id)
    less = [(1, last_id - n * MAX_IDS_AT_ONCE, 10) for n in (0, 0, 0, 1, 2)]
    assert seen == [[one] for one in less]
    assert filler.missing == []


async def test_ids_requested_during_a_stop_stay_missing() -> None:
    let_go = threading.Event()
    asked: list[int] = []

    def hang(*_: Any) -> FetchCounts:
        asked.append(1)
        let_go.wait(30)
        raise TransientError("too late")

    filler = MissingIdsQueue({("trades", "A"): missing(3, 7)}, hang, Exchange().give_up)
    await run_until(filler, lambda: bool(asked))
    let_go.set()
    assert all_missing(filler) == [(3, 7, 10)]


def test_lost_ids_are_missing_until_reported() -> None:
    ids = missing(3, 7)
    ids.miss(MissingRange(9, 8, 20, 90))
    filler = MissingIdsQueue({("trades", "A"): ids}, Exchange().fetch, Exchange().give_up)
    assert all_missing(filler) == [(3, 7, 10), (9, 8, 20)]
