"""Test readers, and changes for them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

from websockets.protocol import CLIENT, Protocol

from include.domain.candles import silent_candle
from include.domain.timeframes import MINUTE_US, timeframe
from serving.bars.live_bars import LiveBars
from serving.websocket.broadcaster import CANDLES, BarBroadcaster, Listener, MessageFormat
from streamer.hub.subscription import Batch, CandleUpdate

T0 = 1_700_000_040_000_000


class Changes:
    """Changes that a test makes; None ends them."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Batch | None] = asyncio.Queue()

    async def receive(self) -> Batch | None:
        return await self.queue.get()

    def unsubscribe(self) -> None:
        pass

    def publish(self, symbol: str, close: int, **how: Any) -> None:
        self.publish_all([symbol], close, **how)

    def publish_all(
        self,
        symbols: list[str],
        close: int,
        *,
        minute: int = 0,
        missed: dict[str, tuple[int, int]] | None = None,
        is_closed: bool = False,
        is_revision: bool = False,
    ) -> None:
        candles = [silent_candle(one, T0 + minute * MINUTE_US, Decimal(close)) for one in symbols]
        updates = [
            CandleUpdate(one, is_closed=is_closed, is_revision=is_revision) for one in candles
        ]
        self.queue.put_nowait(Batch(updates, missed or {}))


class Reader:
    """Takes frames while it likes to."""

    def __init__(self) -> None:
        self.is_open = True
        self.before_first: Callable[[], None] | None = None
        """Called once, at the first frames."""
        self.messages: list[dict[str, Any]] = []
        self._library = Protocol(CLIENT)
        self._calls: list[Callable[[], None]] = []

    def is_writable(self) -> bool:
        return self.is_open

    def write_frames(self, frames: bytes) -> None:
        assert self.is_open
        call, self.before_first = self.before_first, None
        if call is not None:
            call()
        self._library.receive_data(frames)
        for frame in self._library.events_received():
            self.messages.append(json.loads(frame.data))  # type: ignore[union-attr]

    def call_when_writable(self, call: Callable[[], None]) -> None:
        self._calls.append(call)

    def resume(self) -> None:
        self.is_open = True
        calls, self._calls = self._calls, []
        for call in calls:
            call()

    def closes(self, symbol: str = "A") -> list[str]:
        return [one.get("close") or one["price"] for one in self._bars(symbol)]

    def newest_close(self, symbol: str) -> str | None:
        """The last state of the newest minute; older ones may come later."""
        bars = self._bars(symbol)
        newest = max((one["open_time"] for one in bars), default=None)
        return next((one["close"] for one in reversed(bars) if one["open_time"] == newest), None)

    def _bars(self, symbol: str) -> list[dict[str, Any]]:
        return [
            one
            for message in self.messages
            if "data" in message and message["type"] != "missed"
            for one in message["data"]
            if one["symbol"] == symbol
        ]


@asynccontextmanager
async def listening(
    form: MessageFormat = CANDLES,
) -> AsyncIterator[tuple[Changes, LiveBars, BarBroadcaster]]:
    changes = Changes()
    live_bars = LiveBars(lambda: changes, lambda _symbol, _newest: ((), (), ()))
    task = asyncio.create_task(live_bars.run())
    try:
        yield changes, live_bars, BarBroadcaster(live_bars, timeframe("1m"), form)
    finally:
        task.cancel()
        await asyncio.wait([task])


def listener(to: Reader, **options: Any) -> Listener:
    nothing = {"on_gone": lambda: None, "on_end": lambda: None, "patience_s": 30.0}
    return Listener(to, **(nothing | options))


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.001)
