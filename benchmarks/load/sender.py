"""The exchange's side of the benchmarks in its own process: streams and REST on one port.

``python -m benchmarks.load.sender --tape FOLDER --streams N`` sends a tape as fast as the reader
reads, once N of its streams are subscribed over any number of connections. It sends the tape again
for each further set of connections. ``python -m benchmarks.load.sender --symbols N --trades-per-s
N`` is a live market by this machine's clock: the event time of each frame is its time of sending.
Output is lines of JSON; commands are words on a line:

- ``cut SECONDS``: close all connections and refuse new ones for this time (live market only);
- ``stats``: print what was sent and requested so far.

The real exchange has its own machines: if the system allows it, this process has priority on the
core that it shares with PostgreSQL.
"""

from __future__ import annotations

import argparse
import asyncio
import http
import json
import sys
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import uvloop
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.protocol import State

from benchmarks.load.market import MadeMarket, exchange_info
from benchmarks.load.processes import stand_for_other_machines
from benchmarks.load.sent_times import SentTimes
from benchmarks.load.trade_tape import Tape, load_tape
from simulator.streams.hub import encode_text_frame

TICK_S = 0.001
SETTLE_S = 0.5
"""Pause between the last subscription and the first frame of a tape, in which answers are read."""
WRITE_LIMIT_BYTES = 1 << 20
MAX_UNREAD_BYTES = 64 << 20
"""A live connection whose reader lags by this much is closed, as the exchange does."""
WEIGHTS = {"exchangeInfo": 20, "time": 1, "klines": 2}


def tell(event: str, **fields: object) -> None:
    """Print an event."""
    print(json.dumps({"event": event, "at_us": time.time_ns() // 1_000, **fields}), flush=True)


def write(connection: ServerConnection, frames: bytes) -> bool:
    """Write frames without the library, which would frame them again; return False if the reader
    left."""
    if connection.state is not State.OPEN or connection.transport.is_closing():
        return False
    connection.transport.write(frames)
    return True


class Rest:
    """Answers the few REST requests that a streamer makes."""

    def __init__(self, market: MadeMarket) -> None:
        self._market = market
        self._info = exchange_info(market)
        self._places = {name: place for place, name in enumerate(market.symbols)}
        self.asked = dict.fromkeys(WEIGHTS, 0)

    @property
    def weight(self) -> int:
        """Request weight of all requests so far."""
        return sum(count * WEIGHTS[method] for method, count in self.asked.items())

    def answer(self, connection: ServerConnection, request: Request) -> Response:
        """Return the answer to ``GET /api/v3/…``."""
        url = urlsplit(request.path)
        method = url.path.removeprefix("/api/v3/")
        in_us = request.headers.get("X-MBX-TIME-UNIT", "").upper() == "MICROSECOND"
        unit_us = 1 if in_us else 1_000
        if method not in self.asked:
            return connection.respond(http.HTTPStatus.NOT_FOUND, '{"code":-1,"msg":"unknown"}')
        self.asked[method] += 1
        if method == "time":
            body: object = {"serverTime": self._market.now_us // unit_us}
        elif method == "exchangeInfo":
            body = self._info | {"serverTime": self._market.now_us // unit_us}
        else:
            body = self._klines(parse_qs(url.query), unit_us)
        content = json.dumps(body, separators=(",", ":")).encode()
        headers = Headers(
            {
                "Content-Type": "application/json",
                "Content-Length": str(len(content)),
                "Connection": "close",
                "X-MBX-USED-WEIGHT-1M": "1",
            }
        )
        return Response(200, "OK", headers, content)

    def _klines(self, query: dict[str, list[str]], unit_us: int) -> list[list[object]]:
        place = self._places[query["symbol"][0]]
        start_us = int(query.get("startTime", ["0"])[0])
        end_us = int(query.get("endTime", [str(1 << 60)])[0])
        # 13 digits are milliseconds, whatever the answer's unit
        start_us, end_us = (at if at >= 10**14 else at * 1_000 for at in (start_us, end_us))
        limit = int(query.get("limit", ["500"])[0])
        rows = [
            rows[place]
            for open_us, rows in sorted(self._market.closed.items())
            if start_us <= open_us <= end_us
        ][:limit]
        return [[r[0] // unit_us, *r[1:6], r[6] // unit_us, *r[7:]] for r in rows]  # type: ignore[operator]


class Sender:
    """Tracks connections, their subscriptions, and what was sent."""

    def __init__(self, market: MadeMarket, *, wanted: int, tape: Tape | None) -> None:
        self.market = market
        self.rest = Rest(market)
        self.frames = 0
        self.refused_until_s = 0.0
        self._tape = tape
        self._wanted = wanted
        self._places = {name: place for place, name in enumerate(market.streams)}
        self._streams: dict[ServerConnection, set[str]] = {}
        self._owners: dict[int, ServerConnection] = {}
        self._is_complete = asyncio.Event()

    # --- connections

    def on_request(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answer a REST request, refuse, or return None to accept a WebSocket."""
        if request.path.startswith("/api/"):
            return self.rest.answer(connection, request)
        if asyncio.get_running_loop().time() < self.refused_until_s:
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "cut")
        return None

    async def on_connection(self, connection: ServerConnection) -> None:
        """Serve a WebSocket until it ends."""
        assert connection.request is not None
        query = parse_qs(urlsplit(connection.request.path).query)
        self._streams[connection] = set()
        self._subscribe(connection, query.get("streams", [""])[0].split("/"))
        try:
            async for message in connection:
                asked = json.loads(message)
                if asked["method"] == "SUBSCRIBE":
                    self._subscribe(connection, asked["params"])
                elif asked["method"] == "UNSUBSCRIBE":
                    self._unsubscribe(connection, asked["params"])
                answer = json.dumps({"result": None, "id": asked["id"]}).encode()
                write(connection, encode_text_frame(answer))
        except ConnectionClosed:
            pass
        finally:
            self._unsubscribe(connection, list(self._streams.pop(connection)))

    def _subscribe(self, connection: ServerConnection, names: list[str]) -> None:
        for name in names:
            if name in self._places:
                self._streams[connection].add(name)
                self._owners[self._places[name]] = connection
        if len(self._owners) >= self._wanted:
            self._is_complete.set()

    def _unsubscribe(self, connection: ServerConnection, names: list[str]) -> None:
        for name in names:
            place = self._places.get(name)
            if place is not None and self._owners.get(place) is connection:
                del self._owners[place]
        self._streams.get(connection, set()).difference_update(names)
        if len(self._owners) < self._wanted:
            self._is_complete.clear()

    def cut(self, seconds: float) -> None:
        """End all connections and refuse new ones."""
        self.refused_until_s = asyncio.get_running_loop().time() + seconds
        for connection in list(self._streams):
            connection.transport.abort()
        tell("cut", seconds=seconds)

    # --- frames

    async def play(self, tape: Tape) -> None:
        """Send the tape to one set of connections after the other."""
        while True:
            self.market.now_us = tape.start_us
            await self._is_complete.wait()
            readers = [
                (connection, tape.select(streams)) for connection, streams in self._streams.items()
            ]
            await asyncio.sleep(SETTLE_S)
            tell("begun", connections=len(readers))
            self.market.now_us = tape.end_us  # for later REST requests
            for blocks in zip(*(blocks for _, blocks in readers), strict=True):
                if not all(
                    write(connection, block)
                    for (connection, _), block in zip(readers, blocks, strict=True)
                ):
                    break
                for connection, _ in readers:
                    await connection.drain()
            tell("sent")
            while self._streams:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.02)

    async def live(self) -> None:
        """Send the frames of the live market as its trades happen."""
        while True:
            await asyncio.sleep(TICK_S)
            parts: dict[ServerConnection, list[bytes]] = {}
            owners = self._owners
            for place, frame in self.market.advance(time.time_ns() // 1_000):
                owner = owners.get(place)
                if owner is not None:
                    parts.setdefault(owner, []).append(encode_text_frame(frame))
            for connection, frames in parts.items():
                if write(connection, b"".join(frames)):
                    self.frames += len(frames)
                if connection.transport.get_write_buffer_size() > MAX_UNREAD_BYTES:
                    tell("reader_behind")
                    connection.transport.abort()

    async def listen(self) -> None:
        """Execute commands from standard input until it ends."""
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := (await reader.readline()).decode().split():
            if line[0] == "cut":
                self.cut(float(line[1]))
            elif line[0] == "stats":
                tell("stats", frames=self.frames, asked=self.rest.asked, weight=self.rest.weight)

    async def run(self) -> None:
        """Serve until standard input ends."""
        async with serve(
            self.on_connection, "127.0.0.1", 0, process_request=self.on_request,
            compression=None, ping_interval=None, write_limit=WRITE_LIMIT_BYTES,
        ) as server:  # fmt: skip
            port = next(iter(server.sockets)).getsockname()[1]
            tell("ready", ws_url=f"ws://127.0.0.1:{port}", rest_url=f"http://127.0.0.1:{port}")
            sending = asyncio.ensure_future(
                self.live() if self._tape is None else self.play(self._tape)
            )
            listening = asyncio.ensure_future(self.listen())
            done, _ = await asyncio.wait([sending, listening], return_when=asyncio.FIRST_COMPLETED)
            for connection in list(self._streams):
                connection.transport.abort()
            for task in done:
                task.result()
            sending.cancel()


def main() -> None:
    """Entry point of the process."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load.sender")
    parser.add_argument("--tape", type=Path, help="folder of a saved tape")
    parser.add_argument("--streams", type=int, default=0, help="begin the tape with so many")
    parser.add_argument("--symbols", type=int, default=1_500)
    parser.add_argument("--trades-per-s", type=int, default=20_000)
    parser.add_argument("--kline-every-s", type=float, default=2.0)
    parser.add_argument("--closing-ms", type=int, default=20, help="closed klines come so late")
    parser.add_argument("--closing-spread-ms", type=int, default=200, help="and over such a time")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sent-times", type=Path, help="note there when each trade is sent")
    options = parser.parse_args()
    tape = load_tape(options.tape) if options.tape else None
    symbols = options.symbols if tape is None else len(tape.symbols)
    sent_times = SentTimes(options.sent_times, symbols) if options.sent_times else None
    market = MadeMarket(
        symbols=symbols,
        start_us=time.time_ns() // 1_000,
        trades_per_s=options.trades_per_s,
        kline_every_s=options.kline_every_s,
        closing_us=options.closing_ms * 1_000,
        closing_spread_us=options.closing_spread_ms * 1_000,
        seed=options.seed,
        on_trade=None if sent_times is None else sent_times.note,
    )
    if tape is not None:
        market.now_us, market.closed = tape.start_us, tape.closed

    stand_for_other_machines()

    async def run() -> None:
        await Sender(market, wanted=options.streams, tape=tape).run()

    uvloop.run(run())


if __name__ == "__main__":
    main()
