"""Trades after the last captured one of a stopped symbol are fetched completely."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace

import psycopg
import pytest
from structlog.testing import capture_logs

from include.backoff import Backoff
from include.domain.instruments import Market
from include.errors import PermanentError, RefusedAddressError, TransientError
from include.jobs.trades.by_id import FetchCounts, Tail
from include.store.postgres.pools import translated
from streamer.capture.intake.ids import IdSequence, MissingRange
from streamer.capture.repair import trade_calls
from streamer.capture.repair import trailing_trades as module
from streamer.capture.repair.trade_calls import QUICK_ATTEMPTS, SLOW_BACKOFF
from streamer.capture.repair.trailing_trades import PROOFS, TrailingTrades
from streamer.runtime.refusals import Refusals


async def test_requests_end_if_the_symbol_trades_again() -> None:
    ids = IdSequence(late_s=0.0)
    ids.take(7, 7, 0.0)
    asked: list[int] = []

    def fetch(_dataset: str, _symbol: str, after_id: int, after_us: int) -> Tail:
        asked.append(after_id)
        step_us = module.TRADES_AGAIN_US // 2
        return Tail(after_id + 1, after_us + step_us, FetchCounts(1, 0, written=1))

    tails = TrailingTrades(
        {("agg_trades", "A"): ids}, lambda _: True, fetch, lambda *_: None,
        trade_calls.trade_calls(),
    )  # fmt: skip
    tails.stopped("agg_trades", "A", 10)
    await run_until(tails, lambda: not tails.waiting)
    assert asked == [7, 8, 9]
    assert ids.highest == 10


class Exchange:
    """Has trades up to an id, one in each microsecond; fails as configured."""

    def __init__(self, last_id: int, *errors: Exception) -> None:
        self.last_id = last_id
        self.errors = list(errors)
        self.asked: list[int] = []
        self.given_up: list[tuple[int, int, int, int, str]] = []
        self.known = True
        self.lags = False

    def fetch(self, dataset: str, symbol: str, after_id: int, after_us: int) -> Tail:
        assert (dataset, symbol) == ("agg_trades", "A")
        self.asked.append(after_id)
        if self.errors:
            raise self.errors.pop(0)
        assert after_us == after_id
        last_id = after_id if self.lags else self.last_id
        self.lags = False
        return Tail(last_id, last_id, FetchCounts(1, 0, written=last_id - after_id))

    def give_up(
        self, _dataset: str, _symbol: str, missing_range: MissingRange, reason: str
    ) -> None:
        self.given_up.append(
            (
                missing_range.first_id,
                missing_range.ids,
                missing_range.from_us,
                missing_range.to_us,
                reason,
            )
        )

    def tails(self, ids: IdSequence) -> TrailingTrades:
        sequences = {("agg_trades", "A"): ids}
        return TrailingTrades(
            sequences, lambda _: self.known, self.fetch, self.give_up, trade_calls.trade_calls()
        )


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("POLL_S", "REST_DELAY_S", "PACE_S"):
        monkeypatch.setattr(module, name, 0.002)
    monkeypatch.setattr(trade_calls, "BACKOFF", Backoff(first_s=0.001, max_s=0.001))
    monkeypatch.setattr(trade_calls, "SLOW_BACKOFF", Backoff(first_s=0.002, max_s=0.002))


@pytest.fixture
def ids() -> IdSequence:
    sequence = IdSequence(late_s=0.0)
    sequence.take(7, 7, 0.0)
    return sequence


async def run_until(tails: TrailingTrades, done: Callable[[], bool]) -> None:
    task = asyncio.create_task(tails.run())
    async with asyncio.timeout(30):
        while not done():
            await asyncio.sleep(0.001)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_exchange_is_queried_until_it_returns_nothing_more(ids: IdSequence) -> None:
    exchange = Exchange(last_id=9)
    tails = exchange.tails(ids)
    tails.stopped("agg_trades", "A", 50)
    await run_until(tails, lambda: not tails.waiting)
    assert exchange.asked == [7, 9, 9]
    assert tails.filled_rows == 2
    assert ids.highest == 9
    assert ids.missing_ranges == []
    assert exchange.given_up == []


async def test_lagging_answer_hides_no_trades(ids: IdSequence) -> None:
    exchange = Exchange(last_id=9)
    exchange.lags = True
    tails = exchange.tails(ids)
    tails.stopped("agg_trades", "A", 50)
    await run_until(tails, lambda: not tails.waiting)
    assert exchange.asked == [7, 7, 9, 9]
    assert ids.highest == 9


async def test_resumed_symbol_has_no_missing_range_after_its_fetched_trades(
    ids: IdSequence,
) -> None:
    tails = Exchange(last_id=9).tails(ids)
    tails.stopped("agg_trades", "A", 50)
    await run_until(tails, lambda: not tails.waiting)
    assert ids.take(10, 60, 0.0)
    assert ids.missing_ranges == []


async def test_exchange_outage_of_hours_is_retried(ids: IdSequence) -> None:
    exchange = Exchange(7, *[TransientError("away")] * (QUICK_ATTEMPTS + 3))
    tails = exchange.tails(ids)
    tails.stopped("agg_trades", "A", 50)
    with capture_logs() as logged:
        await run_until(tails, lambda: not tails.waiting)
    assert len(exchange.asked) == QUICK_ATTEMPTS + 3 + PROOFS
    assert exchange.given_up == []
    (told,) = [one for one in logged if one["log_level"] == "warning"]
    assert (told["event"], told["first_id"]) == ("trades_overdue", 8)


async def test_temporary_firewall_refusal_is_retried(ids: IdSequence) -> None:
    exchange = Exchange(9, *[RefusedAddressError("403")] * 2)
    tails = exchange.tails(ids)
    tails.stopped("agg_trades", "A", 50)
    with capture_logs() as logged:
        await run_until(tails, lambda: not tails.waiting)
    assert ids.highest == 9
    assert exchange.given_up == []
    told = [one["event"] for one in logged if one["log_level"] == "warning"]
    assert told == ["trades_overdue"]


SPOT = [f"S{n}" for n in range(50)]


class Firewall:
    """Refuses spot for ever; serves a future that has nothing more."""

    def __init__(self, refusals: Refusals) -> None:
        self.asked: list[str] = []
        self.given_up: list[str] = []
        sequences = {("agg_trades", name): IdSequence(late_s=0.0) for name in [*SPOT, "A.P"]}
        for ids in sequences.values():
            ids.take(7, 7, 0.0)
        calls = replace(trade_calls.trade_calls(), refusals=refusals)
        self.tails = TrailingTrades(sequences, lambda _: True, self.fetch, self.give_up, calls)

    def fetch(self, _dataset: str, symbol: str, after_id: int, after_us: int) -> Tail:
        self.asked.append(symbol)
        if symbol in SPOT:
            raise RefusedAddressError("403")
        return Tail(after_id, after_us, FetchCounts(1, 0, written=0))

    def give_up(
        self, _dataset: str, symbol: str, _missing_range: MissingRange, reason: str
    ) -> None:
        assert reason == "403"
        self.given_up.append(symbol)

    async def go_round(self) -> None:
        """Until all symbols were polled some more times."""
        self.tails.stopped("agg_trades", "A.P", 50)
        await run_until(self.tails, lambda: not self.tails.is_pending("agg_trades", "A.P"))

    @property
    def asked_for_spot(self) -> int:
        return sum(symbol in SPOT for symbol in self.asked)


async def test_refusing_market_gets_one_request_at_a_time_for_all_symbols(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits = [60.0, 0.002, 0.002]
    slow = replace(SLOW_BACKOFF, uniform=lambda _min_s, _max_s: waits.pop() if waits else 60.0)
    monkeypatch.setattr(trade_calls, "SLOW_BACKOFF", slow)
    firewall = Firewall(Refusals())
    for name in SPOT:
        firewall.tails.stopped("agg_trades", name, 50)
    with capture_logs() as logged:
        await run_until(firewall.tails, lambda: not waits)
        await firewall.go_round()
    assert firewall.asked_for_spot == 3
    assert firewall.tails.waiting == len(SPOT)
    told = [one["event"] for one in logged if one["log_level"] == "warning"]
    assert told == ["trades_overdue"]


async def test_trades_of_a_permanently_refusing_market_are_given_up_without_further_requests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_S", 0.3)
    monkeypatch.setattr(trade_calls, "SLOW_BACKOFF", SLOW_BACKOFF)
    firewall = Firewall(Refusals())
    for name in SPOT:
        firewall.tails.stopped("agg_trades", name, 50)
    await run_until(firewall.tails, lambda: not firewall.tails.waiting)
    assert firewall.given_up == SPOT
    assert firewall.asked_for_spot == 1


async def test_refusal_of_another_caller_pauses_requests_until_the_market_serves() -> None:
    refusals = Refusals()
    now_s = asyncio.get_running_loop().time()
    refusals.note(Market.SPOT, "403", now_s=now_s, wait_s=600.0)
    firewall = Firewall(refusals)
    firewall.tails.stopped("agg_trades", "S0", 50)
    await firewall.go_round()
    assert firewall.asked_for_spot == 0
    refusals.served(Market.SPOT)
    await run_until(firewall.tails, lambda: firewall.asked_for_spot == 1)


async def test_retries_after_failures_end(ids: IdSequence, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_S", 0.3)
    exchange = Exchange(7, *[TransientError("away")] * 10_000)
    tails = exchange.tails(ids)
    tails.stopped("agg_trades", "A", 50)
    await run_until(tails, lambda: not tails.waiting)
    assert len(exchange.asked) >= QUICK_ATTEMPTS
    assert exchange.given_up == [(8, 0, 7, 50, "away")]


async def test_database_outage_uses_up_no_attempts(ids: IdSequence) -> None:
    with pytest.raises(TransientError) as away, translated("postgresql://me@here/candles"):
        raise psycopg.OperationalError("connection refused")
    exchange = Exchange(9, *[away.value] * (3 * QUICK_ATTEMPTS))
    tails = exchange.tails(ids)
    tails.stopped("agg_trades", "A", 50)
    await run_until(tails, lambda: not tails.waiting)
    assert tails.filled_rows == 2
    assert exchange.given_up == []


async def test_unserved_trades_are_reported_as_possibly_missing(ids: IdSequence) -> None:
    exchange = Exchange(9, PermanentError("no such symbol"))
    tails = exchange.tails(ids)
    tails.stopped("agg_trades", "A", 50)
    await run_until(tails, lambda: not tails.waiting)
    assert exchange.given_up == [(8, 0, 7, 50, "no such symbol")]


async def test_request_waits_until_the_last_stored_row_is_known(ids: IdSequence) -> None:
    exchange = Exchange(9)
    exchange.known = False
    tails = exchange.tails(ids)
    tails.stopped("agg_trades", "A", 50)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await run_until(tails, lambda: bool(exchange.asked))
    exchange.known = True
    await run_until(tails, lambda: bool(exchange.asked))


async def test_symbol_never_captured_is_not_requested() -> None:
    exchange = Exchange(9)
    tails = exchange.tails(IdSequence(late_s=0.0))
    tails.stopped("agg_trades", "A", 50)
    await run_until(tails, lambda: not tails.waiting)
    assert exchange.asked == []
