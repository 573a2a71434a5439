"""Calls at the start are retried until they succeed or the streamer is stopped."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
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
from streamer.symbols.startup import (
    StoppedError,
    StoredState,
    StreamOptions,
    find_start,
    find_stored,
    retry_until_stopped,
    timing_of,
)

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
    monkeypatch.setattr(module, "_stored_minutes", lambda *_: StoredState({}, {}, []))
    monkeypatch.setattr(module, "find_begins", lambda *_: ({}, {}))
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

    found = {"NEWUSDT": T0}, {"BTCUSDT": "HTTP 400"}
    monkeypatch.setattr(module, "open_shared_rest", open_rest)
    monkeypatch.setattr(module, "_stored_minutes", lambda *_: StoredState({}, {}, []))
    monkeypatch.setattr(module, "find_begins", lambda *_: found)
    monkeypatch.setattr(module, "find_missing_beginnings", lambda *_: {})
    monkeypatch.setattr(first_minutes, "log", log)
    settings = load_settings(database_url="postgresql://here/candles", candelabra_home=tmp_path)
    async with asyncio.timeout(30):
        start = await find_start(settings, StreamOptions(("BTCUSDT",)), asyncio.Event())
    assert (start.instruments, start.begins_us) == ([BTC], {"NEWUSDT": T0})
    [warning] = log.calls
    assert (warning.args, warning.kwargs["symbol"]) == (("first_minute_unknown",), "BTCUSDT")


async def test_search_for_missing_minutes_is_retried_and_includes_missing_beginnings(
    log: CapturingLogger, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[Any] = []
    gap = Gap(1, "BTCUSDT", T0, T0 + MINUTE_US, "connection lost", T0, 1, {})

    def stored_minutes(_url: str, symbols: list[str], since_us: int) -> StoredState:
        asked.append((symbols, since_us))
        if len(asked) == 1:
            raise TransientError("refused")
        return StoredState({"BTCUSDT": T0}, {"BTCUSDT": [(1, 2)]}, [gap])

    monkeypatch.setattr(module, "_stored_minutes", stored_minutes)
    monkeypatch.setattr(module, "find_missing_beginnings", lambda *_: {"BTCUSDT": (3, 4)})
    settings = load_settings(database_url="postgresql://here/candles", candelabra_home=tmp_path)
    async with asyncio.timeout(30):
        found = await find_stored(settings, [BTC], {Market.SPOT: T0 + 1}, asyncio.Event())
    assert found == StoredState({"BTCUSDT": T0}, {"BTCUSDT": [(1, 2), (3, 4)]}, [gap])
    assert asked == [(["BTCUSDT"], T0 - 1_440 * MINUTE_US)] * 2
    assert [call.kwargs["what"] for call in log.calls] == ["stored_minutes"]
    assert found.of({"ETHUSDT"}) == StoredState({}, {}, [])
    assert found.of({"BTCUSDT"}) == found


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
def test_only_ids_of_single_usd_m_trades_skip_by_design(
    market: Market, stream: str, tmp_path: Path
) -> None:
    settings = load_settings(candelabra_home=tmp_path)
    timing = timing_of(settings, StreamOptions(("BTCUSDT",), trade_stream=stream), market)
    assert timing.has_contiguous_ids is ((market, stream) != (Market.UM, "trade"))
