"""The board joins bars from minutes, for those who watch and while they do."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from include.domain.candles import Candle, Status
from include.domain.live_bars import BarPart
from include.domain.timeframes import DAY_US, HOUR_US, MINUTE_US, TIMEFRAMES
from include.errors import PermanentError, TransientError
from serving.bars import live_bars as boards
from serving.bars.live_bars import MINUTES_KEPT, LiveBars, Parts
from serving.bars.subscription import Bars, BarSubscription, BarUpdate
from streamer.hub.subscription import Batch, CandleUpdate

HOUR = TIMEFRAMES["1h"]
FIVE = TIMEFRAMES["5m"]
DAY, MONTH = TIMEFRAMES["1d"], TIMEFRAMES["1M"]
MINUTE = TIMEFRAMES["1m"]
T0 = HOUR.open_time_us(1_800_000_000_000_000) + 30 * MINUTE_US


def candle(open_time_us: int, *, symbol: str = "BTCUSDT", close: str = "10") -> Candle:
    price, one = Decimal(close), Decimal(1)
    return Candle(symbol, open_time_us, price, price, price, price, one, price, 1, one, price, 1, 1)


def update(index: int, *, close: str = "10", symbol: str = "BTCUSDT") -> CandleUpdate:
    return CandleUpdate(
        candle(T0 + index * MINUTE_US, close=close, symbol=symbol),
        is_closed=True,
        status=Status.VERIFIED,
    )


class Played:
    """Changes that a test makes."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Batch | None] = asyncio.Queue()
        self.listeners = 0

    def __call__(self) -> Played:
        self.listeners += 1
        return self

    async def receive(self) -> Batch | None:
        return await self.queue.get()

    def unsubscribe(self) -> None:
        self.listeners -= 1

    def publish(
        self,
        *updates: CandleUpdate,
        missed: dict[str, tuple[int, int]] | None = None,
        streamed: set[str] | None = None,
        is_cut: bool = False,
    ) -> None:
        names = None if streamed is None else frozenset(streamed)
        self.queue.put_nowait(Batch(list(updates), missed or {}, names, is_cut))


@asynccontextmanager
async def running(
    read: Callable[[str, int], Parts] = lambda _symbol, _newest: ((), (), ()),
    **options: Any,
) -> AsyncIterator[tuple[LiveBars, Played]]:
    played = Played()
    live_bars = LiveBars(played, read, **options)
    task = asyncio.create_task(live_bars.run())
    try:
        yield live_bars, played
    finally:
        task.cancel()
        await asyncio.wait([task])


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.001)


async def taken(subscription: BarSubscription, count: int) -> list[tuple[str, int, str]]:
    """Timeframe, minutes and close of the next bars."""
    found: list[tuple[str, int, str]] = []
    async with asyncio.timeout(30):
        while len(found) < count and (bars := await subscription.receive()) is not None:
            found += [(o.timeframe, o.minute_count, str(o.candle.close)) for o in bars.updates]
    return found


async def test_source_is_subscribed_only_while_bars_are() -> None:
    async with running() as (live_bars, played):
        await asyncio.sleep(0)
        assert played.listeners == 0
        with live_bars.subscribe(None, [MINUTE]):
            await until(lambda: played.listeners == 1)
        played.publish(update(0))  # with the next change it notices that no reader is left
        await until(lambda: played.listeners == 0)
        assert live_bars.symbols == frozenset()


async def test_bars_continue_from_stored_candles() -> None:
    asked: list[tuple[str, int]] = []

    def read(symbol: str, newest_us: int) -> Parts:
        asked.append((symbol, newest_us))
        before = [candle(T0 - index * MINUTE_US, close="9") for index in range(1, 5)]
        hours = [BarPart(candle(HOUR.open_time_us(T0) - HOUR_US * 2), 60)]
        return before, hours, ()

    async with running(read) as (live_bars, played):
        with live_bars.subscribe(["BTCUSDT"], [HOUR]) as subscription:
            played.publish(update(0, close="11"))
            assert await taken(subscription, 1) == [("1h", 5, "11")]
            assert asked == [("BTCUSDT", T0)]
            assert live_bars.is_snapshot_complete(subscription)
            played.publish(update(1, close="12"))
            assert await taken(subscription, 1) == [("1h", 6, "12")]


async def test_second_subscription_starts_with_the_current_states() -> None:
    async with running() as (live_bars, played):
        with live_bars.subscribe(None, [MINUTE]) as first:
            played.publish(update(0), update(0, symbol="ETHUSDT"))
            await taken(first, 2)
            with live_bars.subscribe(["ETHUSDT"], [MINUTE, FIVE]) as second:
                assert sorted(await taken(second, 2)) == [("1m", 1, "10"), ("5m", 1, "10")]


async def test_minute_older_than_memory_causes_a_new_read() -> None:
    reads: list[int] = []

    def read(_symbol: str, newest_us: int) -> Parts:
        reads.append(newest_us)
        return (), [BarPart(candle(HOUR.open_time_us(T0) - HOUR_US, close=str(len(reads))), 60)], ()

    async with running(read) as (live_bars, played):
        with live_bars.subscribe(["BTCUSDT"], [TIMEFRAMES["2h"], TIMEFRAMES["1d"]]) as subscription:
            played.publish(update(0))
            await taken(subscription, 1)
            played.publish(update(-200, close="5"))
            await until(lambda: len(reads) == 2)


async def test_repaired_minute_updates_bars_that_are_no_longer_the_newest() -> None:
    """Those of the last hours; a reader would else keep a bar that misses a minute."""
    async with running() as (live_bars, played):
        with live_bars.subscribe(["BTCUSDT"], [FIVE, TIMEFRAMES["15m"]]) as subscription:
            played.publish(*(update(index) for index in (0, 1, 2, 4)))
            assert ("5m", 4, "10") in await taken(subscription, 2)
            played.publish(*(update(index) for index in range(5, 25)))
            await until(lambda: subscription.waiting > 0)
            subscription.drain()
            played.publish(update(3))
            await until(lambda: subscription.waiting > 0)
            told = {one.timeframe: one for one in subscription.drain().updates}
            assert {name: one.minute_count for name, one in told.items()} == {"5m": 5, "15m": 15}
            assert told["5m"].is_revision


async def test_old_minute_updates_its_bars_after_a_new_read() -> None:
    reads: list[int] = []
    hour = HOUR.open_time_us(T0) - 5 * HOUR_US

    def read(_symbol: str, newest_us: int) -> Parts:
        reads.append(newest_us)
        return (), [BarPart(candle(hour, close=str(len(reads))), 58 + len(reads))], ()

    async with running(read) as (live_bars, played):
        with live_bars.subscribe(["BTCUSDT"], [FIVE, HOUR]) as subscription:
            played.publish(update(0))
            await taken(subscription, 2)
            played.publish(replace(update(0), candle=candle(hour + MINUTE_US)))
            assert await taken(subscription, 1) == [("1h", 60, "2")]


async def test_symbol_is_read_once_at_a_time_and_again_if_requested_meanwhile() -> None:
    """Of two concurrent reads the older might end last, and win."""
    release, reads = threading.Event(), []

    def read(_symbol: str, newest_us: int) -> Parts:
        reads.append(newest_us)
        if len(reads) == 1:
            release.wait(30)
        return (), (), ()

    async with running(read) as (live_bars, played):
        with live_bars.subscribe(["BTCUSDT"], [FIVE]) as subscription:
            played.publish(update(0))
            await until(lambda: len(reads) == 1)
            played.publish(missed={"BTCUSDT": (T0, T0 + MINUTE_US)})
            played.publish(*(update(index) for index in range(1, 20)))
            await until(
                lambda: (
                    not live_bars.is_snapshot_complete(subscription) and bool(live_bars._to_read)
                )
            )
            for _ in range(20):
                await asyncio.sleep(0.001)
            assert len(reads) == 1
            release.set()
            await until(lambda: len(reads) == 2 and live_bars.is_snapshot_complete(subscription))
            assert reads == [T0, T0 + 19 * MINUTE_US]


async def test_failed_read_is_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boards, "BACKOFF", boards.Backoff(first_s=0.01, max_s=0.01))
    failures: list[Exception] = [TransientError("away"), PermanentError("no such table")]

    def read(_symbol: str, _newest_us: int) -> Parts:
        if failures:
            raise failures.pop()
        return (), (), ()

    async with running(read) as (live_bars, played):
        with live_bars.subscribe(["BTCUSDT"], [FIVE]) as subscription:
            played.publish(update(0))
            assert await taken(subscription, 1) == [("5m", 1, "10")]
    assert not failures


async def test_minutes_missed_on_the_way_are_reported_and_read_again() -> None:
    reads: list[int] = []

    def read(_symbol: str, newest_us: int) -> Parts:
        reads.append(newest_us)
        return (), (), ()

    async with running(read) as (live_bars, played):
        with live_bars.subscribe(["BTCUSDT"], [MINUTE, FIVE]) as subscription:
            played.publish(update(0))
            await taken(subscription, 2)
            played.publish(missed={"BTCUSDT": (T0, T0 + MINUTE_US)})
            bars = await subscription.receive()
            assert bars is not None
            assert [one.timeframe for one in bars.missed] == ["1m"]
            await until(lambda: len(reads) == 2)


async def test_end_of_the_source_ends_subscriptions() -> None:
    async with running() as (live_bars, played):
        subscription = live_bars.subscribe(None, [MINUTE])
        played.publish(update(0))
        played.queue.put_nowait(None)
        assert len(await taken(subscription, 1)) == 1
        assert await subscription.receive() is None
        assert await live_bars.subscribe(None, [MINUTE]).receive() is not None  # the last states
    assert live_bars.subscribers == 2


async def test_states_of_a_symbol_are_bounded() -> None:
    async with running(is_always_on=True) as (live_bars, played):
        await until(lambda: played.listeners == 1)
        played.publish(*(update(index) for index in range(50)))
        await until(lambda: bool(live_bars.symbols))
        assert len(live_bars._states["BTCUSDT"]) == MINUTES_KEPT


async def test_subscription_changes_its_symbols_and_receives_only_those() -> None:
    async with running() as (live_bars, played):
        with live_bars.subscribe(["BTCUSDT"], [MINUTE]) as subscription:
            played.publish(update(0), update(0, symbol="ETHUSDT"))
            assert len(await taken(subscription, 1)) == 1
            live_bars.add_symbols(subscription, ["ETHUSDT", "BTCUSDT"])
            (bar,) = subscription.drain().updates  # the present state of the new one alone
            assert bar.candle.symbol == "ETHUSDT"
            played.publish(update(1), update(1, symbol="ETHUSDT"))
            await until(lambda: subscription.waiting == 2)
            live_bars.remove_symbols(subscription, ["BTCUSDT", "NONE"])
            assert [one.candle.symbol for one in subscription.drain().updates] == ["ETHUSDT"]
            assert subscription.symbols == frozenset({"ETHUSDT"})
            played.publish(update(2), update(2, symbol="ETHUSDT"))
            bars = await subscription.receive()
            assert bars is not None
            assert [one.candle.symbol for one in bars.updates] == ["ETHUSDT"]


def traded(index: int, first_id: int, *, close: str = "10") -> CandleUpdate:
    one = replace(
        candle(T0 + index * MINUTE_US, close=close), first_trade_id=first_id, last_trade_id=first_id
    )
    return CandleUpdate(one, is_closed=True, status=Status.VERIFIED)


async def test_bars_restart_when_the_ticker_is_reused() -> None:
    """No bar holds minutes of both, whether it was in memory before or is read after."""
    asked: list[int] = []

    def read(_symbol: str, newest_us: int) -> Parts:
        before = [candle(T0 - 9 * MINUTE_US, close="99"), candle(T0 - 8 * MINUTE_US, close="99")]
        hour = BarPart(candle(HOUR.open_time_us(T0) - 2 * HOUR_US, close="99"), 60)
        day = BarPart(candle(DAY.open_time_us(T0 - 3 * DAY_US), close="99"), 1_440)
        asked.append(newest_us)
        return before, [hour], [day]

    async with running(read) as (live_bars, played):
        with live_bars.subscribe(["BTCUSDT"], [HOUR, MONTH]) as subscription:
            played.publish(traded(0, 50_000, close="99"))
            await until(lambda: bool(asked))
            await until(lambda: live_bars.is_snapshot_complete(subscription))
            played.publish(traded(1, 50_010, close="99"), traded(2, 7, close="3"))
            await until(lambda: live_bars.since_us("BTCUSDT") == T0 + 2 * MINUTE_US)
            played.publish(traded(3, 8, close="4"), traded(1, 50_010, close="98"))
            bars: dict[str, BarUpdate] = {}
            while {one.minute_count for one in bars.values()} != {2}:
                bars |= {one.timeframe: one for one in (await _next(subscription)).updates}
            assert set(bars) == {"1h", "1M"}
            for one in bars.values():
                assert (one.candle.open, one.candle.high, one.candle.close) == (3, 4, 4)
        with live_bars.subscribe(["BTCUSDT"], [MONTH]) as late:
            found = await _next(late)
            assert [one.minute_count for one in found.updates] == [2]
            assert found.updates[0].candle.high == 4


async def _next(subscription: BarSubscription) -> Bars:
    async with asyncio.timeout(30):
        bars = await subscription.receive()
    assert bars is not None
    return bars


async def test_dropped_symbols_are_forgotten_after_their_last_states() -> None:
    dropped: list[set[str]] = []
    names = {"BTCUSDT", "ETHUSDT"}
    async with running(on_dropped=lambda gone: dropped.append(set(gone))) as (live_bars, played):
        with live_bars.subscribe(None, [MINUTE, FIVE]) as subscription:
            played.publish(update(0), update(0, symbol="ETHUSDT"), streamed=names)
            await taken(subscription, 4)
            played.publish(update(1), update(1, symbol="ETHUSDT"), streamed={"ETHUSDT"})
            told: list[BarUpdate] = []
            while len(told) < 3:
                bars = await asyncio.wait_for(subscription.receive(), 30)
                assert bars is not None
                told += bars.updates
            assert {one.candle.symbol for one in told if one.timeframe == "5m"} == {"ETHUSDT"}
            assert {one.candle.symbol for one in told if one.timeframe == "1m"} == names
            assert (live_bars.symbols, dropped) == ({"ETHUSDT"}, [{"BTCUSDT"}])
            assert not live_bars.knows("BTCUSDT")
            assert set(live_bars._bars) == {"ETHUSDT"}
            with live_bars.subscribe(["BTCUSDT"], [MINUTE]) as late:
                assert not late.drain()
                played.publish(update(3), streamed=names)  # streamed again
                await until(lambda: live_bars.knows("BTCUSDT"))
                assert [one.candle.open_time_us for one in late.drain().updates] == [
                    T0 + 3 * MINUTE_US
                ]


async def test_subscriber_can_receive_which_of_its_symbols_are_streamed() -> None:
    async with running() as (live_bars, played):
        with (
            live_bars.subscribe(None, [MINUTE], reports_streamed=True) as first,
            live_bars.subscribe(["BTCUSDT", "XRPUSDT"], [MINUTE], reports_streamed=True) as some,
            live_bars.subscribe(None, [MINUTE]) as plain,
        ):
            assert not first.drain()  # not known yet
            played.publish(streamed={"BTCUSDT", "ETHUSDT"})
            bars = await first.receive()
            assert bars is not None
            assert bars.streamed == {"BTCUSDT", "ETHUSDT"}
            assert some.drain().streamed == {"BTCUSDT"}
            with live_bars.subscribe(None, [MINUTE], reports_streamed=True) as late:
                assert late.drain().streamed == {"BTCUSDT", "ETHUSDT"}
            played.publish(streamed={"BTCUSDT"})
            bars = await first.receive()
            assert bars is not None
            assert bars.streamed == {"BTCUSDT"}
            assert not some.drain()  # nothing new for it
            assert not plain.drain()


async def test_bar_is_read_again_when_a_minute_leaves_memory_without_quotes() -> None:
    """Its closed kline was lost: the table has the minute by REST, perhaps of another process."""
    hour_us = HOUR.open_time_us(T0)
    right = replace(candle(T0), quote_volume=Decimal("2.5"))
    reads = []

    def read(_symbol: str, newest_us: int) -> Parts:
        reads.append(newest_us)
        return (right,) if len(reads) > 1 else (), (), ()

    async with running(read) as (live_bars, played):
        with live_bars.subscribe(["BTCUSDT"], [HOUR]) as subscription:
            played.publish(replace(update(0), status=None, has_quotes=False))
            (bar,) = (await subscription.receive()).updates  # type: ignore[union-attr]
            assert (bar.candle.open_time_us, bar.has_quotes) == (hour_us, False)
            for index in range(1, MINUTES_KEPT + 1):
                played.publish(update(index))
            await until(lambda: len(reads) == 2)
            async with asyncio.timeout(30):
                while bar.minute_count <= MINUTES_KEPT or not bar.has_quotes:
                    bars = await subscription.receive()
                    assert bars is not None
                    (bar,) = bars.updates
    # Each other minute has 10.
    assert bar.candle.quote_volume == Decimal("2.5") + 10 * MINUTES_KEPT
