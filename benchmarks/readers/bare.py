"""Receive, decode, count: the minimum work of a trade reader, with the streamer's library.

``python -m benchmarks.readers.bare URL STREAM_FILE FRAMES``: the file contains the stream names,
one line for each connection. Frames are received at the same point as in the streamer, and decoded
into its structs.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import uvloop
from websockets.asyncio.client import ClientConnection, connect
from websockets.frames import Frame, Opcode

from include.binance.streams.messages import Combined


class Counter:
    """Counts frames, and records when the first and the last one arrived."""

    def __init__(self, wanted: int) -> None:
        self.count = 0
        self.wanted = wanted
        self.is_done = asyncio.Event()


def connection_class(counter: Counter) -> type[ClientConnection]:
    """A connection that decodes each text frame the moment it is parsed."""
    decode = msgspec.json.Decoder(Combined).decode

    class Connection(ClientConnection):
        is_begun = False

        def process_event(self, event: Any) -> None:
            if self.is_begun and type(event) is Frame and event.opcode is Opcode.TEXT:
                try:
                    decode(event.data)
                except msgspec.ValidationError:
                    return  # the answer to a subscription
                counter.count += 1
                if counter.count == counter.wanted:
                    counter.is_done.set()
            else:
                super().process_event(event)

    return Connection


async def read(url: str, names: list[list[str]], wanted: int) -> None:
    """Read a number of frames of the streams."""
    counter = Counter(wanted)
    create = connection_class(counter)
    opened = []
    for of_connection in names:
        connection = await connect(
            url, create_connection=create, compression=None, ping_interval=None, proxy=None
        )
        assert isinstance(connection, create)
        connection.is_begun = True
        opened.append(connection)
        for first in range(0, len(of_connection), 200):
            params = of_connection[first : first + 200]
            await connection.send(json.dumps({"method": "SUBSCRIBE", "params": params, "id": 1}))
    await counter.is_done.wait()
    at_us = time.time_ns() // 1_000
    print(json.dumps({"event": "done", "frames": counter.count, "at_us": at_us}), flush=True)
    for connection in opened:
        connection.transport.abort()


if __name__ == "__main__":
    lines = [line.split() for line in Path(sys.argv[2]).read_text().splitlines()]
    uvloop.run(read(sys.argv[1], lines, int(sys.argv[3])))
