"""The streamer with a reader of its hub: time from sending a trade to its candle update.

It runs in its own process: ``python -m benchmarks.readers.hub`` with the streamer's settings in the
environment. Each trade is recorded when it is aggregated. The trade's latency ends with the first
update whose last trade id is not smaller. Commands on standard input: ``begin`` and ``pause``
measuring, and ``end``, after which it prints all latencies in µs and the last candles it received.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import defaultdict, deque

import uvloop

from include.binance.streams.messages import AggTrade, Trade
from include.config import load_settings
from include.logs import configure_logging
from serving.beside_streamer import BESIDE_STREAMER
from streamer.app import Streamer
from streamer.hub.subscription import CandleUpdate
from streamer.symbols.startup import StreamOptions

LOOK_S = 0.05


class Reader:
    """Records incoming trades and finds them in the updates."""

    def __init__(self, streamer: Streamer) -> None:
        self.streamer = streamer
        self.latencies_us: list[int] = []
        self.told: dict[str, dict[int, CandleUpdate]] = defaultdict(dict)
        self.missed = 0
        self._inside: dict[str, deque[tuple[int, int]]] = defaultdict(deque)
        self._is_measuring = False

    def note(self, trade: AggTrade | Trade) -> None:
        """Record an aggregated trade."""
        self._inside[trade.symbol].append((trade.last_trade_id, trade.event_time))

    async def read(self) -> None:
        """Handle an update of the hub."""
        with self.streamer.hub.subscribe() as subscription:
            async for batch in subscription:
                now_us = time.time_ns() // 1_000
                self.missed += len(batch.missed)
                for update in batch.updates:
                    self._take(update, now_us)

    def _take(self, update: CandleUpdate, now_us: int) -> None:
        candle = update.candle
        self.told[candle.symbol][candle.open_time_us] = update
        last_id = -1 if candle.last_trade_id is None else candle.last_trade_id
        inside = self._inside[candle.symbol]
        while inside and inside[0][0] <= last_id:
            sent_us = inside.popleft()[1]
            if self._is_measuring:
                self.latencies_us.append(now_us - sent_us)

    async def obey(self) -> None:
        """Execute commands from standard input until it ends."""
        words = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(words), sys.stdin)
        while word := (await words.readline()).decode().strip():
            self._is_measuring = word == "begin"
            if word == "end":
                self._tell("latencies", us=sorted(self.latencies_us), missed=self.missed)
                self._tell("candles", rows=list(self._rows()))
        self.streamer.stop()

    def _rows(self) -> list[list[object]]:
        return [
            [symbol, open_us, str(update.status), *map(str, update.candle.values)]
            for symbol, minutes in self.told.items()
            for open_us, update in minutes.items()
        ]

    async def begin(self) -> None:
        """Wait until all symbols deliver, then start to record their trades."""
        feeds = self.streamer.telemetry.feeds
        while not feeds or any(feed.delivering_since_us is None for feed in feeds):  # noqa: ASYNC110
            await asyncio.sleep(LOOK_S)
        for feed in feeds:
            feed._capture = self.note
        self._tell("streaming_started", connections=len(feeds))
        await self.obey()

    @staticmethod
    def _tell(event: str, **fields: object) -> None:
        print(json.dumps({"event": event, **fields}), flush=True)


async def run() -> None:
    """Stream until standard input ends."""
    streamer = Streamer(load_settings(), StreamOptions(symbols=("*USDT",)), BESIDE_STREAMER)
    reader = Reader(streamer)
    tasks = [asyncio.ensure_future(work) for work in (reader.read(), reader.begin())]
    await streamer.run()
    for task in tasks:
        await task


if __name__ == "__main__":
    configure_logging("ERROR", "json")
    uvloop.run(run())
