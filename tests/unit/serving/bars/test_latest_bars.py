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

    def tell(self, close: int, *names: str, minute: int = 0) -> None:
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
async def board_of(changes: Changes) -> AsyncIterator[LiveBars]:
    live_bars = LiveBars(lambda: changes, lambda _symbol, _newest: ((), (), ()))
    running = asyncio.create_task(live_bars.run())
    try:
        yield live_bars
    finally:
        running.cancel()
        await asyncio.wait([running])


async def test_the_newest_bars_are_told_as_they_are_when_somebody_asks() -> None:
    changes = Changes()
    async with board_of(changes) as live_bars:
        latest = LatestBars(live_bars)
        changes.tell(1, "BTCUSDT", "ETHUSDT")
        asking = [
            asyncio.create_task(latest.of(NAMES, one, wait_s=30)) for one in (ONE, FIVE, FIVE)
        ]
        for found in await asyncio.gather(*asking):
            assert {name: bar.candle.close for name, bar in found.items()} == dict.fromkeys(
                NAMES, 1
            )
        assert live_bars.subscribers == 2
        changes.tell(2, "BTCUSDT", minute=1)
        async with asyncio.timeout(30):
            while (await latest.of(NAMES, FIVE))["BTCUSDT"].candle.close != 2:
                await asyncio.sleep(0.01)
        found = await latest.of(NAMES, ONE)
        assert found["BTCUSDT"].candle.open_time_us == T0 + MINUTE_US
        assert found["ETHUSDT"].candle.close == 1
        assert (await latest.of(NAMES, FIVE))["BTCUSDT"].minute_count == 2


async def test_symbols_that_nothing_is_known_of_are_left_out_after_a_while() -> None:
    changes = Changes()
    async with board_of(changes) as live_bars:
        latest = LatestBars(live_bars)
        changes.tell(1, "BTCUSDT")
        assert set(await latest.of(NAMES, ONE, wait_s=0.2)) == {"BTCUSDT"}


async def test_what_nobody_asks_for_any_more_is_left() -> None:
    changes = Changes()
    now_s = 0.0
    async with board_of(changes) as live_bars:
        latest = LatestBars(live_bars, linger_s=0.05, max_followed=1, clock=lambda: now_s)
        changes.tell(1, *NAMES)
        await latest.of(frozenset({"BTCUSDT"}), FIVE)
        await latest.of(frozenset({"ETHUSDT"}), FIVE)
        (subscription,) = live_bars._subscriptions
        assert subscription.symbols == {"ETHUSDT"}
        now_s = 1.0
        async with asyncio.timeout(30):
            while live_bars.subscribers:
                await asyncio.sleep(0.01)
        changes.tell(3, "ETHUSDT")
        async with asyncio.timeout(30):
            while (await latest.of(frozenset({"ETHUSDT"}), ONE))["ETHUSDT"].candle.close != 3:
                await asyncio.sleep(0.01)


async def test_a_symbol_that_was_dropped_is_told_no_more() -> None:
    changes = Changes()
    async with board_of(changes) as live_bars:
        latest = LatestBars(live_bars)
        changes.tell(1, *NAMES)
        assert set(await latest.of(NAMES, ONE, wait_s=30)) == NAMES
        changes.queue.put_nowait(Batch([], {}, frozenset({"ETHUSDT"})))
        async with asyncio.timeout(30):
            while live_bars.knows("BTCUSDT"):
                await asyncio.sleep(0.01)
        assert set(await latest.of(NAMES, ONE, wait_s=0.05)) == {"ETHUSDT"}
