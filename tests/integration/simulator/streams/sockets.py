"""Client connections to the streams of a simulator."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from websockets.asyncio.client import ClientConnection

from simulator.config import SimulatorConfig
from simulator.server import Exchange

Frame = dict[str, Any]

NOON = datetime(2026, 2, 3, 14, 0, 30, tzinfo=UTC)
FAST = SimulatorConfig(clock_start=NOON, speed=200)
"""A minute takes 0.3 seconds; pings come every half second, pongs are due within two."""


async def read(ws: ClientConnection, timeout_s: float = 30) -> Frame:
    """Return the next frame."""
    async with asyncio.timeout(timeout_s):
        frame: Frame = json.loads(await ws.recv())
    return frame


async def collect(ws: ClientConnection, until: Callable[[list[Frame]], bool]) -> list[Frame]:
    """Return the frames up to the first with which the condition holds."""
    frames: list[Frame] = []
    async with asyncio.timeout(30):
        while not until(frames):
            frames.append(json.loads(await ws.recv()))
    return frames


async def read_on(ws: ClientConnection, timeout_s: float = 30) -> None:
    """Read until an exception ends it."""
    while True:
        await read(ws, timeout_s)


async def open_raw(exchange: Exchange) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection whose bytes the test writes itself."""
    host, port = exchange.spot_ws_url.removeprefix("ws://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    async with asyncio.timeout(30):
        answer = await reader.readuntil(b"\r\n\r\n")
    assert b"101 Switching Protocols" in answer
    return reader, writer
