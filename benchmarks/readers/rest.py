"""Clients that request 500 candles by REST, each over a persistent connection.

``python -m benchmarks.readers.rest --url URL --symbols NAME,… --rate N``: requests are due at even
intervals, whether earlier requests were answered or not. Latency counts from the due time. Cold
ranges were not requested before; hot requests repeat the same few ranges.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from urllib.parse import urlsplit

import uvloop

from benchmarks.load.processes import stand_for_other_machines

CANDLES = 500
HOT_RANGES = 20
MINUTE_MS = 60_000
BEGINNING_S = 1.0
"""Warm-up, in which connections to PostgreSQL are opened and statements planned."""
GIVE_UP = 2.0
"""Multiple of the expected time after which open requests are dropped."""


class Client:
    """Sends one request after the other over one connection."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port

    async def open(self) -> None:
        """Connect."""
        self._reader, self._writer = await asyncio.open_connection(
            self._host, self._port, limit=1 << 22
        )

    async def ask(self, path: str) -> tuple[int, int]:
        """Status and size in bytes of a response."""
        self._writer.write(f"GET {path} HTTP/1.1\r\nHost: {self._host}\r\n\r\n".encode())
        head = await self._reader.readuntil(b"\r\n\r\n")
        size = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        body = await self._reader.readexactly(size)
        assert body.count(b'"open_time"') in (0, CANDLES), body[:200]
        return int(head.split(b" ", 2)[1]), size

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()


def paths(options: argparse.Namespace, count: int) -> list[str]:
    """Yield the requests, in order."""
    dice = random.Random(7)
    names = options.symbols.split(",")
    last_ms = options.to_ms - CANDLES * MINUTE_MS
    minutes = (last_ms - options.from_ms) // MINUTE_MS
    every = dice.sample(range(len(names) * minutes), HOT_RANGES if options.hot else count)
    made = []
    for number in every:
        name, minute = names[number % len(names)], number // len(names)
        start_ms = options.from_ms + minute * MINUTE_MS
        end_ms = start_ms + CANDLES * MINUTE_MS
        made.append(
            f"/api/v1/candles?symbol={name}&timeframe=1m&from={start_ms}&to={end_ms}"
            f"&limit={CANDLES}"
        )
    return [made[number % len(made)] for number in range(count)]


async def run(options: argparse.Namespace) -> None:
    """Send a request, and print how long it took."""
    url = urlsplit(options.url)
    asked = paths(options, int(options.rate * options.seconds))
    clients = [Client(str(url.hostname), int(url.port or 0)) for _ in range(options.clients)]
    for one in clients:
        await one.open()
    if options.hot:
        for path in asked[:HOT_RANGES]:
            await clients[0].ask(path)
    due = iter(enumerate(asked))
    latencies: list[float] = []
    settled: list[float] = []
    statuses: dict[int, int] = {}
    began_s = time.perf_counter()
    give_up_s = began_s + GIVE_UP * options.seconds

    async def work(client: Client) -> None:
        for number, path in due:
            due_s = began_s + number / options.rate
            await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
            if time.perf_counter() > give_up_s:
                return  # too late; the printed rate shows it
            status, _ = await client.ask(path)
            latencies.append((time.perf_counter() - due_s) * 1e3)
            if number >= options.rate * BEGINNING_S:
                settled.append(latencies[-1])
            statuses[status] = statuses.get(status, 0) + 1

    async with asyncio.timeout(options.seconds * GIVE_UP + 60):
        await asyncio.gather(*map(work, clients))
    took_s = time.perf_counter() - began_s
    for one in clients:
        one.close()
    told = {
        "latencies_ms": sorted(latencies),
        "settled_ms": sorted(settled),
        "statuses": statuses,
        "rate": len(latencies) / took_s,
    }
    print(json.dumps({"event": "answered", **told}), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readers.rest")
    parser.add_argument("--url", required=True)
    parser.add_argument("--symbols", required=True)
    parser.add_argument("--from-ms", type=int, required=True)
    parser.add_argument("--to-ms", type=int, required=True)
    parser.add_argument("--rate", type=float, default=500.0, help="requests a second")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--hot", action="store_true", help="the same few ranges")
    arguments = parser.parse_args()
    stand_for_other_machines()
    uvloop.run(run(arguments))
