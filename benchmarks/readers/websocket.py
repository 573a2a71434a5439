"""Readers of ``/api/v1/ws``: many in one process, each with some symbols.

``python -m benchmarks.readers.websocket --url URL --readers N --symbols NAME,NAME …`` connects the
readers, prints ``ready``, and after the word ``begin`` counts until ``end``. Most readers are raw
sockets that only receive, because they share their core with the exchange: they count messages and
bytes, and the longest pause between two messages. A few readers decode. A trade's latency ends with
the first state that counts the trade, however many other trades that state includes. The latency of
a state's newest trade is printed as well.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import random
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import msgspec
import uvloop

from benchmarks.load.market import MINUTE_US
from benchmarks.load.processes import stand_for_other_machines
from benchmarks.load.sent_times import SentTimes

CONNECTS_AT_ONCE = 50
LATE_US = 250_000


class Bar(msgspec.Struct):
    """The fields of a candle that are read."""

    symbol: str
    open_time: int
    trade_count: int
    is_closed: bool


class Told(msgspec.Struct):
    """A message of data, or of control."""

    type: str
    data: list[Bar] = msgspec.field(default_factory=list)


_DECODER = msgspec.json.Decoder(Told)


class Taker(asyncio.Protocol):
    """One reader: shakes hands, subscribes, and receives messages.

    Args:
        on_message: receives each message; None only counts messages.
    """

    def __init__(self, url: str, subscription: bytes, probe: Probe | None) -> None:
        self._url = urlsplit(url)
        self._subscription = subscription
        self._probe = probe
        self._buffer = bytearray()
        self.is_open = False
        self.is_lost = False
        self.messages = self.bytes = self.longest_us = 0
        self._last_us = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        key = base64.b64encode(os.urandom(16)).decode()
        self._transport.write(
            (
                f"GET {self._url.path} HTTP/1.1\r\nHost: {self._url.netloc}\r\n"
                "Upgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
            ).encode()
        )

    def connection_lost(self, error: Exception | None) -> None:
        self.is_lost = True

    def begin(self, now_us: int) -> None:
        """Start counting."""
        self.messages = self.bytes = self.longest_us = 0
        self._last_us = now_us
        if self._probe is not None:
            self._probe.begin()

    def end(self, now_us: int) -> None:
        """Stop counting; the last pause ends now."""
        self.longest_us = max(self.longest_us, now_us - self._last_us)

    def data_received(self, data: bytes) -> None:
        if self._probe is None and not self._buffer and _is_whole(data) and self.is_open:
            self._count(len(data) - 4, time.time_ns() // 1_000)  # nearly all messages
            return
        buffer = self._buffer
        buffer += data
        if not self.is_open:
            head, mark, rest = bytes(buffer).partition(b"\r\n\r\n")
            if not mark:
                return
            assert b" 101 " in head.split(b"\r\n", 1)[0], head
            self.is_open = True
            self._buffer = buffer = bytearray(rest)
            self._transport.write(_masked(self._subscription))
        now_us = time.time_ns() // 1_000
        at, size = 0, len(buffer)
        while size - at >= 2:
            length, first = buffer[at + 1], at + 2
            if length == 126:
                if size - at < 4:
                    break
                length, first = int.from_bytes(buffer[at + 2 : at + 4]), at + 4
            elif length == 127:
                if size - at < 10:
                    break
                length, first = int.from_bytes(buffer[at + 2 : at + 10]), at + 10
            if size < first + length:
                break
            if buffer[at] & 0x0F in (1, 2):
                self._count(length, now_us)
                if self._probe is not None:
                    self._probe.take(bytes(buffer[first : first + length]), now_us)
            at = first + length
        del buffer[:at]

    def _count(self, length: int, now_us: int) -> None:
        """Handle a message."""
        self.messages += 1
        self.bytes += length
        if now_us - self._last_us > self.longest_us:
            self.longest_us = now_us - self._last_us
        self._last_us = now_us


def _is_whole(data: bytes) -> bool:
    """Whether the data is exactly one message of 126 bytes to 64 KiB."""
    size = len(data)
    return (
        size >= 4
        and data[0] in (0x81, 0x82)
        and data[1] == 126
        and size == 4 + (data[2] << 8 | data[3])
    )


def _masked(text: bytes) -> bytes:
    """Return a client's frame, with a mask of zeros."""
    size = len(text)
    head = bytes([0x81, 0x80 | size]) if size < 126 else b"\x81\xfe" + size.to_bytes(2)
    return head + bytes(4) + text


@dataclass(slots=True)
class Probe:
    """Finds when each trade reached a reader."""

    sent: SentTimes
    places: dict[str, int]
    latencies_us: list[int] = field(default_factory=list)
    """Latency of each trade."""
    newest_us: list[int] = field(default_factory=list)
    """Latency of the newest trade of each state."""
    _counts: dict[tuple[str, int], int] = field(default_factory=dict)

    def begin(self) -> None:
        """Start measuring."""
        self.latencies_us.clear()
        self.newest_us.clear()

    def take(self, message: bytes, now_us: int) -> None:
        """Handle a message."""
        for bar in _DECODER.decode(message).data:
            minute_us = bar.open_time * 1_000
            key = bar.symbol, minute_us
            known = self._counts.get(key)
            if known is None:  # the first state of a reader or of a minute
                self._counts.pop((bar.symbol, minute_us - 2 * MINUTE_US), None)
                is_begun = (bar.symbol, minute_us - MINUTE_US) in self._counts
                known = 0 if is_begun else bar.trade_count
            if bar.trade_count > known:
                sent = self.sent.of(self.places[bar.symbol], minute_us, known, bar.trade_count)
                self.latencies_us += [now_us - one for one in sent]
                self.newest_us += [now_us - one for one in sent[-1:]]
            self._counts[key] = max(known, bar.trade_count)


async def run(options: argparse.Namespace) -> None:
    """Connect, measure on command, and print."""
    names = options.symbols.split(",")
    places = {name: place for place, name in enumerate(names)}
    sent = SentTimes(options.sent_times, len(names))
    dice = random.Random(1)
    probes = [Probe(sent, places) for _ in range(min(options.probes, options.readers))]
    apart = max(options.readers // max(len(probes), 1), 1)
    takers = []
    for number in range(options.readers):
        chosen = dice.sample(names, options.each)
        asked = {"type": "subscribe", "channel": options.channel, "symbols": chosen}
        if options.binary:
            asked["format"] = "binary"
        # Probes are spread evenly over the order of connection, in which a round serves the
        # readers.
        place, rest = divmod(number, apart)
        probe = probes[place] if rest == 0 and place < len(probes) else None
        takers.append(Taker(options.url, json.dumps(asked).encode(), probe))
    url = urlsplit(options.url)
    loop = asyncio.get_running_loop()
    for first in range(0, len(takers), CONNECTS_AT_ONCE):
        some = takers[first : first + CONNECTS_AT_ONCE]
        for one in some:
            await loop.create_connection(lambda one=one: one, url.hostname, url.port)  # type: ignore[misc]
        async with asyncio.timeout(30):
            while not all(one.is_open for one in some):  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.005)
    _tell("ready")

    words = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(words), sys.stdin)
    while word := (await words.readline()).decode().strip():
        now_us = time.time_ns() // 1_000
        if word == "begin":
            for one in takers:
                one.begin(now_us)
        if word == "end":
            for one in takers:
                one.end(now_us)
            latencies = sorted(us for one in probes for us in one.latencies_us)
            newest = sorted(us for one in probes for us in one.newest_us)
            _tell(
                "read",
                lost=sum(one.is_lost for one in takers),
                messages=sum(one.messages for one in takers),
                bytes=sum(one.bytes for one in takers),
                fewest=min(one.messages for one in takers),
                longest_us=sorted(one.longest_us for one in takers),
                late=sum(us > LATE_US for us in latencies),
                trades=len(latencies),
                states=len(newest),
                latencies_us=_thinned(latencies),
                newest_us=_thinned(newest),
            )


def _thinned(ordered: list[int], most: int = 10_000) -> list[int]:
    """Return a bounded, even sample, and the greatest."""
    if len(ordered) <= most:
        return ordered
    return [ordered[len(ordered) * number // most] for number in range(most)] + ordered[-1:]


def _tell(event: str, **fields: object) -> None:
    print(json.dumps({"event": event, **fields}), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readers.websocket")
    parser.add_argument("--url", required=True, help="of the WebSocket")
    parser.add_argument("--readers", type=int, required=True)
    parser.add_argument("--probes", type=int, default=10, help="readers that decode")
    parser.add_argument("--each", type=int, default=5, help="symbols of a reader")
    parser.add_argument("--symbols", required=True, help="all there are, by comma")
    parser.add_argument("--channel", default="candles")
    parser.add_argument("--binary", action="store_true", help="prices as bytes")
    parser.add_argument("--sent-times", type=Path, required=True)
    arguments = parser.parse_args()
    stand_for_other_machines()
    uvloop.run(run(arguments))
