"""Calls at the start are retried until they succeed or the streamer is stopped."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import CapturingLogger

from include.backoff import Backoff
from include.config import load_settings
from include.domain.instruments import Instrument, Market
from include.domain.timeframes import MINUTE_US
from include.errors import PermanentError, RateLimitedError, TransientError
from include.store.ledgers.gaps import Gap
from streamer.symbols import first_minutes
from streamer.symbols import startup as module
from streamer.symbols.first_minutes import Beginnings
from streamer.symbols.startup import (
    StoppedError,
    StoredState,
    StreamOptions,
    find_start,
    find_stored,
    retry_until_stopped,
    timing_of,
)
from tests.unit.streamer.played_database import Connected

T0 = 1_700_000_040_000_000
BTC = Instrument(
    "BTCUSDT", Market.SPOT, "BTC", "USDT", "TRADING", Decimal("0.01"), Decimal("0.00001")
)


class Answers:
    """Raises each error once, then answers 42."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self) -> int:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return 42


@pytest.fixture(autouse=True)
def log(monkeypatch: pytest.MonkeyPatch) -> CapturingLogger:
    log = CapturingLogger()
    monkeypatch.setattr(module, "log", log)
    monkeypatch.setattr(module, "BACKOFF", Backoff(first_s=0.11, max_s=0.11, min_s=0.1))
    return log


@pytest.fixture
def hanging() -> Iterator[threading.Event]:
    """Set at the end of the test, so that no thread goes on."""
    release = threading.Event()
    yield release
    release.set()


async def test_transient_failure_is_retried(log: CapturingLogger) -> None:
    call = Answers(TransientError("refused"), TransientError("502"))
    assert (
        await asyncio.wait_for(retry_until_stopped("server_time", call, asyncio.Event()), 10) == 42
    )
    assert call.calls == 3
    assert [(c.args[0], c.kwargs["what"], c.kwargs["error"]) for c in log.calls] == [
        ("start_postponed", "server_time", "refused"),
        ("start_postponed", "server_time", "502"),
    ]


async def test_permanent_failure_is_not_retried() -> None:
    call = Answers(PermanentError("no such host"))
    with pytest.raises(PermanentError, match="no such host"):
        await asyncio.wait_for(retry_until_stopped("server_time", call, asyncio.Event()), 10)
    assert call.calls == 1


async def test_rate_limit_is_waited_out() -> None:
    call = Answers(RateLimitedError("429", retry_after_s=0.4))
    started_s = time.monotonic()
    await asyncio.wait_for(retry_until_stopped("exchange_info", call, asyncio.Event()), 10)
    assert time.monotonic() - started_s >= 0.4


async def test_stop_ends_the_wait_between_two_attempts() -> None:
    stop = asyncio.Event()
    call = Answers(RateLimitedError("429", retry_after_s=600))
    task = asyncio.create_task(retry_until_stopped("exchange_info", call, stop))
    async with asyncio.timeout(30):
        while call.calls == 0:
            await asyncio.sleep(0.002)
        stop.set()
        with pytest.raises(StoppedError):
            await task


async def test_stop_does_not_wait_for_a_hanging_call(hanging: threading.Event) -> None:
    stop, begun = asyncio.Event(), threading.Event()

    def call() -> int:
        begun.set()
        hanging.wait(60)
        return 42

    task = asyncio.create_task(retry_until_stopped("exchange_info", call, stop))
    async with asyncio.timeout(30):
        while not begun.is_set():
            await asyncio.sleep(0.002)
        stop.set()
        with pytest.raises(StoppedError):
            await task


async def test_earlier_stop_prevents_the_call(hanging: threading.Event) -> None:
    stop = asyncio.Event()
    stop.set()
    with pytest.raises(StoppedError):
        await asyncio.wait_for(
            retry_until_stopped("server_time", lambda: hanging.wait(60), stop), 10
        )


async def test_hanging_call_is_retried(
    hanging: threading.Event, log: CapturingLogger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CALL_TIMEOUT_S", 0.3)
    calls: list[int] = []

    def call() -> int:
        calls.append(1)
        if len(calls) == 1:
            hanging.wait(60)
        return len(calls)

    async with asyncio.timeout(30):
        assert await retry_until_stopped("stored_minutes", call, asyncio.Event()) == 2
    assert log.calls[0].kwargs["error"] == "stored_minutes: no answer within 0.3 s"


class Client:
    """A client of REST that serves one call at a time, as the connection of its budget does."""

    def __init__(self, hangs_until: threading.Event | None) -> None:
        self.hangs_until = hangs_until
        self.is_used = False

    def exchange_info(self) -> list[Instrument]:
        return self._answer([BTC])

    def server_time_us(self) -> int:
        return self._answer(T0)

    def _answer(self, answer: Any) -> Any:
        if self.is_used:
            raise PermanentError("the connection is in a transaction")
        self.is_used = True
        if self.hangs_until is not None:
            self.hangs_until.wait(60)
        self.is_used = False
        return answer


async def test_database_that_freezes_during_a_request_delays_the_start(
    hanging: threading.Event,
    log: CapturingLogger,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    opened: list[Client] = []

    @contextlib.contextmanager
    def open_rest(*_: object) -> Iterator[Client]:
        opened.append(Client(None if opened else hanging))
        yield opened[-1]

    monkeypatch.setattr(module, "CALL_TIMEOUT_S", 0.3)
    monkeypatch.setattr(module, "open_shared_rest", open_rest)
    monkeypatch.setattr(module, "_stored_minutes", lambda *_, now_us: StoredState({}, {}, []))
    monkeypatch.setattr(module, "find_begins", lambda *_: Beginnings({}, {}, {}))
    monkeypatch.setattr(module, "find_missing_beginnings", lambda *_: {})
    settings = load_settings(database_url="postgresql://here/candles", candelabra_home=tmp_path)
    async with asyncio.timeout(30):
        start = await find_start(settings, StreamOptions(("BTCUSDT",)), asyncio.Event())
    assert (start.instruments, start.now_us) == ([BTC], {Market.SPOT: T0})
    assert log.calls[0].kwargs["error"] == "exchange_info: no answer within 0.3 s"


async def test_start_streams_a_symbol_whose_first_minute_is_refused_and_warns(
    log: CapturingLogger, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    @contextlib.contextmanager
    def open_rest(*_: object) -> Iterator[Client]:
        yield Client(None)

    left = {"BTCUSDT": [(T0 - 60_000_000, T0)]}
    found = Beginnings({"NEWUSDT": T0}, {"BTCUSDT": "HTTP 400"}, left)
    monkeypatch.setattr(module, "open_shared_rest", open_rest)
    monkeypatch.setattr(module, "_stored_minutes", lambda *_, now_us: StoredState({}, {}, []))
    monkeypatch.setattr(module, "find_begins", lambda *_: found)
    monkeypatch.setattr(module, "find_missing_beginnings", lambda *_: {})
    monkeypatch.setattr(first_minutes, "log", log)
    settings = load_settings(database_url="postgresql://here/candles", candelabra_home=tmp_path)
    async with asyncio.timeout(30):
        start = await find_start(settings, StreamOptions(("BTCUSDT",)), asyncio.Event())
    assert (start.instruments, start.begins_us) == ([BTC], {"NEWUSDT": T0})
    assert start.stored.left_us == left
    [warning] = log.calls
    assert (warning.args, warning.kwargs["symbol"]) == (("first_minute_unknown",), "BTCUSDT")


async def test_search_for_missing_minutes_is_retried_and_includes_missing_beginnings(
    log: CapturingLogger, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[Any] = []
    gap = Gap(1, "BTCUSDT", T0, T0 + MINUTE_US, "connection lost", T0, 1, {})

    def stored_minutes(_url: str, symbols: list[str], since_us: int, *, now_us: int) -> StoredState:
        assert now_us >= since_us
        asked.append((symbols, since_us))
        if len(asked) == 1:
            raise TransientError("refused")
        return StoredState({"BTCUSDT": T0}, {"BTCUSDT": [(T0 - 9, T0 - 7)]}, [gap])

    monkeypatch.setattr(module, "_stored_minutes", stored_minutes)
    monkeypatch.setattr(module, "find_missing_beginnings", lambda *_: {"BTCUSDT": (T0 - 5, T0 - 4)})
    settings = load_settings(database_url="postgresql://here/candles", candelabra_home=tmp_path)
    async with asyncio.timeout(30):
        found = await find_stored(settings, [BTC], {Market.SPOT: T0 + 1}, asyncio.Event())
    assert found == StoredState(
        {"BTCUSDT": T0}, {"BTCUSDT": [(T0 - 9, T0 - 7), (T0 - 5, T0 - 4)]}, [gap]
    )
    assert asked == [(["BTCUSDT"], T0 - 1_440 * MINUTE_US)] * 2
    assert [call.kwargs["what"] for call in log.calls] == ["stored_minutes"]
    assert found.of({"ETHUSDT"}) == StoredState({}, {}, [])
    assert found.of({"BTCUSDT"}) == found


async def test_what_a_streamer_missed_before_a_long_stop_is_left_to_jobs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It was killed before it recorded its last gaps."""
    lookback_us = 1_440 * MINUTE_US
    now_us = T0 + 2 * lookback_us
    horizon_us = now_us - lookback_us
    gap = Gap(1, "BTCUSDT", T0 - MINUTE_US, T0 - 5, "connection lost", T0, 1, {})
    new = Gap(2, "LATEUSDT", T0 - 9 * MINUTE_US, T0 - 7 * MINUTE_US, "not streamed", T0, 1, {})
    missed = [(T0 - 3 * MINUTE_US, T0 - 2 * MINUTE_US), (T0 - MINUTE_US, T0)]
    recent = (horizon_us + MINUTE_US, horizon_us + 2 * MINUTE_US)
    asked: list[int] = []
    left: list[object] = []

    def to_request(_c: object, _s: object, since_us: int, **_: object) -> dict[str, Any]:
        asked.append(since_us)
        return {"BTCUSDT": [*missed, recent]}

    def beginnings(*arguments: Any) -> dict[str, tuple[int, int]]:
        asked.append(arguments[-1])
        return {"NEWUSDT": (T0 - MINUTE_US, T0)}

    monkeypatch.setattr(module, "connect", lambda *_args, **_more: Connected())
    for name in ("server_started", "remove_stale_live", "close_proven_gaps"):
        monkeypatch.setattr(module, name, lambda *_args, **_more: None)
    monkeypatch.setattr(module, "claim_gaps", lambda *_args, **_more: [gap, new])
    monkeypatch.setattr(module, "first_minutes", lambda *_: {"LATEUSDT": T0})
    monkeypatch.setattr(module, "last_minutes", lambda *_args, **_more: {"BTCUSDT": T0})
    monkeypatch.setattr(module, "minutes_to_request", to_request)
    monkeypatch.setattr(module, "find_missing_beginnings", beginnings)
    monkeypatch.setattr(module, "leave_to_jobs", lambda _, ranges_us: left.append(ranges_us))
    settings = load_settings(database_url="postgresql://here/candles", candelabra_home=tmp_path)
    async with asyncio.timeout(30):
        found = await find_stored(settings, [BTC], {Market.SPOT: now_us}, asyncio.Event())
    assert asked == [T0 - lookback_us] * 2
    assert found.unsure_us == {"BTCUSDT": [recent]}
    old = {
        "BTCUSDT": [missed[0], (T0 - 5, T0)],
        "NEWUSDT": [(T0 - MINUTE_US, T0)],
        "LATEUSDT": [(T0 - 7 * MINUTE_US, T0)],
    }
    assert found.left_us == old
    assert left == [old]


@pytest.mark.parametrize(("market", "grace_ms"), [(Market.SPOT, 1_250), (Market.UM, 2_750)])
@pytest.mark.parametrize("klines", [True, False])
def test_each_market_waits_for_its_own_close_grace(
    market: Market, grace_ms: int, klines: bool, tmp_path: Path
) -> None:
    settings = load_settings(
        close_grace_spot_ms=1_250, close_grace_um_ms=2_750, kline_timeout_ms=4_500,
        candelabra_home=tmp_path,
    )  # fmt: skip
    timing = timing_of(settings, StreamOptions(("BTCUSDT",), klines=klines), market)
    assert timing.grace_us == grace_ms * 1_000
    assert timing.kline_timeout_us == 4_500_000
    assert timing.expects_klines is klines


@pytest.mark.parametrize("market", Market)
@pytest.mark.parametrize("stream", ["aggTrade", "trade"])
def test_only_ids_of_single_trades_of_futures_skip_by_design(
    market: Market, stream: str, tmp_path: Path
) -> None:
    settings = load_settings(candelabra_home=tmp_path)
    timing = timing_of(settings, StreamOptions(("BTCUSDT",), trade_stream=stream), market)
    assert timing.has_contiguous_ids is not (market.is_futures and stream == "trade")


def test_halted_symbols_of_a_stop_longer_than_the_lookback_are_streamed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They may lack the minutes between the stop and their end."""
    stopped_us, horizon_us = T0 - 3_000 * MINUTE_US, T0 - 1_440 * MINUTE_US
    last_us = {
        "TRADESUSDT": stopped_us,
        "ENDEDUSDT": stopped_us - 5 * MINUTE_US,
        "RAREUSDT": stopped_us - 59 * MINUTE_US,
        "OLDUSDT": stopped_us - 61 * MINUTE_US,
    }
    asked: list[int] = []

    def unknown(_: object, _symbols: object, since_us: int) -> dict[str, int]:
        asked.append(since_us)
        return {"LOSTUSDT": stopped_us}

    monkeypatch.setattr(module, "connect", lambda *_args, **_more: Connected())
    monkeypatch.setattr(module, "last_minutes", lambda *_: dict(last_us))
    monkeypatch.setattr(module, "unknown_since", unknown)
    halted = ["ENDEDUSDT", "RAREUSDT", "OLDUSDT", "LOSTUSDT", "NEVERUSDT"]
    find = partial(module._streamed_before, "postgresql://here", halted, [*last_us])
    assert find(horizon_us) == ["ENDEDUSDT", "RAREUSDT", "LOSTUSDT"]
    assert asked == [stopped_us - 60 * MINUTE_US]
    last_us["TRADESUSDT"] = T0  # streamed until now: what ended earlier is complete
    assert find(horizon_us) == []
