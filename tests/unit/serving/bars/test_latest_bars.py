"""The newest bars of any symbols, from memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal

from include.domain.candles import silent_candle
from include.domain.timeframes import MINUTE_US, TIMEFRAMES
from serving.bars.latest_bars import LatestBars
from serving.bars.live_bars import LiveBars
from streamer.hub.subscription import Batch, CandleUpdate

T0 = 1_700_000_100_000_000
ONE, FIVE = TIMEFRAMES["1m"], TIMEFRAMES["5m"]
NAMES = frozenset({"BTCUSDT", "ETHUSDT"})


class Changes:
    """Changes that a test makes."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Batch] = asyncio.Queue()

    async def receive(self) -> Batch | None:
        return await self.queue.get()

    def unsubscribe(self) -> None:
        pass

    def publish(self, close: int, *names: str, minute: int = 0) -> None:
        updates = [
            CandleUpdate(
                replace(
                    silent_candle(name, T0 + minute * MINUTE_US, Decimal(close)), trade_count=1
                ),
                is_closed=False,
            )
            for name in names
        ]
        self.queue.put_nowait(Batch(updates, {}))


@asynccontextmanager
async def running_bars(changes: Changes) -> AsyncIterator[LiveBars]:
    live_bars = LiveBars(lambda: changes, lambda _symbol, _newest: ((), (), ()))
    running = asyncio.create_task(live_bars.run())
    try:
        yield live_bars
    finally:
        running.cancel()
        await asyncio.wait([running])


async def test_newest_bars_are_current_when_requested() -> None:
    changes = Changes()
    async with running_bars(changes) as live_bars:
        latest = LatestBars(live_bars)
        changes.publish(1, "BTCUSDT", "ETHUSDT")
        asking = [
            asyncio.create_task(latest.of(NAMES, one, wait_s=30)) for one in (ONE, FIVE, FIVE)
        ]
        for found in await asyncio.gather(*asking):
            assert {name: bar.candle.close for name, bar in found.items()} == dict.fromkeys(
                NAMES, 1
            )
        assert live_bars.subscribers == 2
        changes.publish(2, "BTCUSDT", minute=1)
        async with asyncio.timeout(30):
            while (await latest.of(NAMES, FIVE))["BTCUSDT"].candle.close != 2:
                await asyncio.sleep(0.01)
        found = await latest.of(NAMES, ONE)
        assert found["BTCUSDT"].candle.open_time_us == T0 + MINUTE_US
        assert found["ETHUSDT"].candle.close == 1
        assert (await latest.of(NAMES, FIVE))["BTCUSDT"].minute_count == 2


async def test_symbols_without_bars_are_omitted_after_a_wait() -> None:
    changes = Changes()
    async with running_bars(changes) as live_bars:
        latest = LatestBars(live_bars)
        changes.publish(1, "BTCUSDT")
        assert set(await latest.of(NAMES, ONE, wait_s=0.2)) == {"BTCUSDT"}


async def test_unrequested_timeframes_are_unsubscribed() -> None:
    changes = Changes()
    now_s = 0.0
    async with running_bars(changes) as live_bars:
        latest = LatestBars(live_bars, linger_s=0.05, max_followed=1, clock=lambda: now_s)
        changes.publish(1, *NAMES)
        await latest.of(frozenset({"BTCUSDT"}), FIVE)
        await latest.of(frozenset({"ETHUSDT"}), FIVE)
        (subscription,) = live_bars._subscriptions
        assert subscription.symbols == {"ETHUSDT"}
        now_s = 1.0
        async with asyncio.timeout(30):
            while live_bars.subscribers:
                await asyncio.sleep(0.01)
        changes.publish(3, "ETHUSDT")
        async with asyncio.timeout(30):
            while (await latest.of(frozenset({"ETHUSDT"}), ONE))["ETHUSDT"].candle.close != 3:
                await asyncio.sleep(0.01)


async def test_dropped_symbol_is_no_longer_returned() -> None:
    changes = Changes()
    async with running_bars(changes) as live_bars:
        latest = LatestBars(live_bars)
        changes.publish(1, *NAMES)
        assert set(await latest.of(NAMES, ONE, wait_s=30)) == NAMES
        changes.queue.put_nowait(Batch([], {}, frozenset({"ETHUSDT"})))
        async with asyncio.timeout(30):
            while live_bars.knows("BTCUSDT"):
                await asyncio.sleep(0.01)
        assert set(await latest.of(NAMES, ONE, wait_s=0.05)) == {"ETHUSDT"}
