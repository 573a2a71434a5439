"""Who is still there: the pings of HTTP/2 as the server sends them, answers them, and refuses them.

The peer is a bare socket, so that what it says and leaves unsaid is the test's own. The times are
shorter than those of the server, in the same proportions.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from include.domain.timeframes import MINUTE_US
from serving.bars.live_bars import LiveBars
from serving.grpc import server as grpc_server
from serving.grpc.market_data import MarketData
from serving.grpc.server import grpc_serving
from serving.read_pool import ReadPool
from streamer.hub.subscription import Batch

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, PING, GOAWAY = 4, 6, 7
"""Kinds of frames: https://www.rfc-editor.org/rfc/rfc9113#section-6"""
ACK = 1
ENHANCE_YOUR_CALM = 11
PATIENCE_S = 30.0
LONG_MS = 600_000


class Silent:
    """Nothing is streamed."""

    async def receive(self) -> Batch | None:
        await asyncio.Event().wait()
        return None

    def unsubscribe(self) -> None:
        pass


@dataclass
class Peer:
    """One end of a connection, frame by frame."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, kind: int, body: bytes = b"", *, flags: int = 0) -> None:
        head = struct.pack(">I", len(body))[1:] + struct.pack(">BBI", kind, flags, 0)
        self.writer.write(head + body)
        await self.writer.drain()

    async def receive(self, *kinds: int) -> tuple[int, int, bytes]:
        """The next frame of these kinds: its kind, flags and body."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                head = await self.reader.readexactly(9)
                kind, flags = head[3], head[4]
                body = await self.reader.readexactly(int.from_bytes(head[:3]))
                if kind in kinds:
                    return kind, flags, body

    async def answered(self, number: int) -> bool:
        """Whether a ping is answered; otherwise the server has closed the connection."""
        await self.send(PING, number.to_bytes(8))
        kind, flags, body = await self.receive(PING, GOAWAY)
        while kind == PING and not flags & ACK:  # one of the server's own
            kind, flags, body = await self.receive(PING, GOAWAY)
        if kind == GOAWAY:
            assert int.from_bytes(body[4:8]) == ENHANCE_YOUR_CALM
            assert body[8:] == b"too_many_pings"
            return False
        assert body == number.to_bytes(8)
        return True


@asynccontextmanager
async def peer() -> AsyncIterator[Peer]:
    """Connected to a server, and past the greeting; no call is made."""
    live_bars = LiveBars(Silent, lambda _symbol, _newest: ((), (), ()))
    history = ReadPool("postgresql://nobody@127.0.0.1:1/none")
    service = MarketData(live_bars, history, streamed=lambda: [], now_us=lambda: MINUTE_US)
    async with grpc_serving(service, host="127.0.0.1", port=0) as address:
        host, _, port = address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        one = Peer(reader, writer)
        try:
            writer.write(PREFACE)
            await one.send(SETTINGS)
            await one.receive(SETTINGS)
            await one.send(SETTINGS, flags=ACK)
            yield one
        finally:
            writer.close()


def paced(monkeypatch: pytest.MonkeyPatch, *, keepalive_ms: int, timeout_ms: int) -> None:
    monkeypatch.setattr(grpc_server, "KEEPALIVE_MS", keepalive_ms)
    monkeypatch.setattr(grpc_server, "KEEPALIVE_TIMEOUT_MS", timeout_ms)


async def test_idle_peer_is_pinged(monkeypatch: pytest.MonkeyPatch) -> None:
    paced(monkeypatch, keepalive_ms=100, timeout_ms=LONG_MS)
    async with peer() as one:
        for _ in range(5):
            _, flags, body = await one.receive(PING)
            assert flags == 0
            await one.send(PING, body, flags=ACK)


async def test_unresponsive_peer_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    paced(monkeypatch, keepalive_ms=100, timeout_ms=100)
    async with peer() as one:
        await one.receive(PING)
        async with asyncio.timeout(PATIENCE_S):
            while await one.reader.read(4_096):
                pass


async def test_pings_at_half_the_servers_pace_or_slower_are_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    allowed_ms = 200
    paced(monkeypatch, keepalive_ms=2 * allowed_ms, timeout_ms=LONG_MS)
    async with peer() as one:
        for number in range(6):  # more than are forgiven where they are too quick
            assert await one.answered(number)
            # of the server's clock: it took the last one before it answered
            await asyncio.sleep(allowed_ms / 1_000 + 0.01)


async def test_ping_flood_is_refused() -> None:
    async with peer() as one:
        answered = 0
        while await one.answered(answered):
            answered += 1
            assert answered < 10
        assert answered > 0  # a few are forgiven
