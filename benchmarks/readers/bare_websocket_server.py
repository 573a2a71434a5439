"""Two WebSocket servers to compare the cost of a message: ours, and a bare broadcast.

``python -m benchmarks.readers.bare_websocket_server ours|bare --symbols NAME,… --each N`` prints
``ready`` with its address, changes all symbols ``--hz`` times a second, and runs until standard
input ends.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from decimal import Decimal

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve

from include.domain.candles import Candle
from include.domain.timeframes import MINUTE_US
from serving.app import create_app
from serving.bars.day_prices import DayPriceCache
from serving.bars.live_bars import LiveBars
from serving.bars.subscription import BarUpdate
from serving.http.server import Place, serving
from serving.read_pool import ReadPool
from serving.websocket.messages import candle_of
from streamer.hub.subscription import Batch, CandleUpdate

T0 = 1_763_716_800_000_000


def candle(symbol: str, number: int) -> Candle:
    """Return the open minute after a number of changes."""
    price, volume = Decimal(6_000_000 + number % 977), Decimal(1_000 + number)
    price, volume = price.scaleb(-2), volume.scaleb(-5)
    return Candle(
        symbol, T0 // MINUTE_US * MINUTE_US, price, price + 9, price - 9, price, volume,
        volume * price, number + 1, volume / 2, volume * price / 2, 0, number,
    )  # fmt: skip


class Changes:
    """Change all symbols at a fixed rate."""

    def __init__(self, names: list[str], hz: float) -> None:
        self._names = names
        self._pause_s = 1 / hz
        self._number = 0

    async def next(self) -> Batch | None:
        """Wait for the next change."""
        await asyncio.sleep(self._pause_s)
        self._number += 1
        made = [CandleUpdate(candle(one, self._number), is_closed=False) for one in self._names]
        return Batch(made, {})

    def leave(self) -> None:
        """Unsubscribe."""


async def ours(names: list[str], hz: float) -> None:
    """Return the application, on generated changes."""
    history = ReadPool("postgresql://nobody@127.0.0.1:1/none")
    live_bars = LiveBars(lambda: Changes(names, hz), lambda _symbol, _newest: ((), (), ()))
    app = create_app(
        live_bars,
        history,
        streamed=lambda: names,
        now_us=lambda: T0,
        newest=live_bars.newest,
        condition=lambda: {"status": "well"},
        prices=DayPriceCache(
            history, streamed=lambda: names, newest=live_bars.newest, now_us=lambda: T0
        ),
        requests_per_minute=1_000_000,
    )
    place = Place("127.0.0.1", 0, has_websockets=True, max_connections=20_000)
    async with serving(app, place) as url:
        listening = asyncio.create_task(live_bars.run())
        _tell("ready", url=url.replace("http", "ws") + "/api/v1/ws")
        await _until_told()
        listening.cancel()


async def bare(names: list[str], hz: float, each: int) -> None:
    """Serve the library's broadcast: one message, as large as ours, to all connections."""
    bars = [candle_of(BarUpdate("1m", candle(one, 1))) for one in names[:each]]
    text = b'{"type":"candles","data":[' + b",".join(bars) + b"]}"
    connections: set[ServerConnection] = set()

    async def on_connection(connection: ServerConnection) -> None:
        connections.add(connection)
        try:
            await connection.wait_closed()
        finally:
            connections.discard(connection)

    async def tell() -> None:
        while True:
            await asyncio.sleep(1 / hz)
            broadcast(connections, text, text=True)

    async with serve(on_connection, "127.0.0.1", 0, compression=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        telling = asyncio.create_task(tell())
        _tell("ready", url=f"ws://127.0.0.1:{port}/")
        await _until_told()
        telling.cancel()


async def _until_told() -> None:
    words = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(words), sys.stdin)
    await words.read()


def _tell(event: str, **fields: object) -> None:
    print(json.dumps({"event": event, **fields}), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readers.bare_websocket_server")
    parser.add_argument("which", choices=["ours", "bare"])
    parser.add_argument("--symbols", required=True)
    parser.add_argument("--each", type=int, default=5)
    parser.add_argument("--hz", type=float, default=10.0)
    asked = parser.parse_args()
    symbols = asked.symbols.split(",")
    uvloop.run(
        ours(symbols, asked.hz) if asked.which == "ours" else bare(symbols, asked.hz, asked.each)
    )
