"""A reader of the streamer's WebSocket, which connects again after each of its lives."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from include.domain.timeframes import from_us
from tests.chaos.stage.processes import StreamerProcess
from tests.integration.faults.staging import VALUES

SUBSCRIBE: Final = json.dumps({"type": "subscribe", "channel": "candles", "timeframe": "1m"})
RETRY_S = 0.1
RECEIVE_TIMEOUT_S = 0.5
RANKS: Final = {None: 0, "partial": 1, "unconfirmed": 2, "verified": 3}


@dataclass(slots=True)
class Published:
    """What one connection received.

    Attributes:
        since_us: time of the exchange at which it subscribed.
        bars: the last state of each symbol's minute.
        wrong: bars whose state went back to a lesser one.
        has_missed: whether the server reported evicted bars.
    """

    since_us: int
    bars: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    has_missed: bool = False

    def receive(self, message: dict[str, Any]) -> None:
        """Record a message."""
        self.has_missed = self.has_missed or message["type"] == "missed"
        for bar in message["data"] if message["type"] == "candles" else ():
            key = (bar["symbol"], bar["open_time"] * 1_000)
            before = self.bars.get(key)
            if before is not None and RANKS[bar["status"]] < RANKS[before["status"]]:
                told = f"{key[0]} {from_us(key[1]):%d %H:%M}"
                self.wrong.append(f"{told}: {bar['status']} after {before['status']} in the hub")
            self.bars[key] = bar


def values_of(bar: dict[str, Any]) -> tuple[Decimal, ...]:
    """The nine values of a published bar."""
    return tuple(Decimal(bar[name] or 0) for name in VALUES)


class Reader:
    """Reads in a separate thread until it is stopped.

    Args:
        now_us: the exchange's clock.
    """

    def __init__(self, streamer: StreamerProcess, now_us: Callable[[], int]) -> None:
        self._streamer = streamer
        self._now_us = now_us
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reader", daemon=True)
        self.connections: list[Published] = []

    def start(self) -> None:
        """Start reading."""
        self._thread.start()

    def stop(self) -> None:
        """Stop reading; the received bars stay."""
        self._stop.set()
        self._thread.join(timeout=10)

    def _run(self) -> None:
        while not self._stop.wait(RETRY_S):
            listening = [
                one["url"] for one in self._streamer.logged("http_listening")
                if one["settings"] == "API_*"
            ]  # fmt: skip
            if listening:
                try:
                    self._read(listening[-1].replace("http://", "ws://", 1) + "/api/v1/ws")
                except (OSError, WebSocketException):
                    continue  # the streamer is down

    def _read(self, url: str) -> None:
        with connect(url, open_timeout=2, close_timeout=1) as socket:
            socket.send(SUBSCRIBE)
            published = Published(self._now_us())
            while not self._stop.is_set():
                try:
                    message = json.loads(socket.recv(timeout=RECEIVE_TIMEOUT_S))
                except TimeoutError:
                    continue
                if message["type"] == "error":
                    return  # not_yet: it streams nothing so far
                if message["type"] == "subscribed":
                    self.connections.append(published)
                published.receive(message)
