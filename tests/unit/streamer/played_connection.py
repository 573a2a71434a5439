"""A feed's connection and aggregators, played, and the messages that it is given."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from include.binance.streams.messages import AggTrade, Kline, Trade
from include.binance.streams.session import StreamSession
from include.domain.timeframes import MINUTE_US
from streamer.candles.feed import CandleFeed

T0 = 1_700_000_000_000_000 // MINUTE_US * MINUTE_US


class Connection:
    """Stands in for ``StreamConnection`` and records calls."""

    def __init__(
        self,
        url: str,
        *,
        name: str,
        streams: list[str],
        on_texts: Callable[[Sequence[bytes]], None],
        on_open: Callable[[], None],
        on_close: Callable[[], None],
        **_: Any,
    ) -> None:
        self.url, self.name, self.streams = url, name, streams
        self.session = StreamSession(streams, names_per_message=2)
        self.is_open = False
        self.now_s = 0.0
        self.reconnected: list[str] = []
        self.rotated: list[str] = []
        self._on_open, self._on_close, self._on_texts = on_open, on_close, on_texts

    def open(self) -> None:
        self.session = StreamSession(self.streams, names_per_message=2)
        self.is_open = True
        self._on_open()

    def close(self) -> None:
        self.is_open = False
        self._on_close()

    def send(self) -> dict[str, Any] | None:
        """The control message that the session has to send next."""
        self.now_s += 1
        message = self.session.next_message(self.now_s)
        return None if message is None else json.loads(message)

    def answer(self, number: int) -> None:
        """The exchange's acknowledgement."""
        self._on_texts([json.dumps({"result": None, "id": number}).encode()])

    def send_all(self) -> list[dict[str, Any]]:
        """Control messages that the session has to send, each answered before the next."""
        sent = []
        while (message := self.send()) is not None:
            sent.append(message)
            self.answer(message["id"])
        return sent

    def reconnect(self, reason: str) -> None:
        self.reconnected.append(reason)

    def rotate(self, reason: str) -> None:
        self.rotated.append(reason)


class Aggregator:
    """Keeps what it is given."""

    def __init__(self, symbol: str) -> None:
        self.symbol = symbol
        self.trades: list[int] = []
        self.klines: list[int] = []
        self.connections: list[int | None] = []
        self.clock: list[int] = []
        self.deadline_us: int | None = None

    def on_trade(self, trade: AggTrade | Trade) -> None:
        self.trades.append(trade.id)

    def on_kline(self, kline: Kline) -> None:
        self.klines.append(kline.body.open_time)

    def connected(self, exchange_us: int) -> None:
        self.connections.append(exchange_us)

    def disconnected(self) -> None:
        self.connections.append(None)

    def next_deadline_us(self) -> int | None:
        return self.deadline_us

    def on_clock(self, exchange_us: int) -> bool:
        self.clock.append(exchange_us)
        return len(self.clock) == 1


def parts(feed: CandleFeed) -> tuple[Connection, list[Aggregator]]:
    connection: Any = feed.connection
    aggregators: Any = feed.aggregators
    return connection, aggregators


def trade(symbol: str, number: int, event_us: int, **changes: object) -> bytes:
    data = {
        "e": "aggTrade", "E": event_us, "s": symbol, "a": number, "p": "10.5", "q": "2",
        "f": number, "l": number, "T": event_us, "m": False, "M": True,
    }  # fmt: skip
    stream = f"{symbol.lower()}@aggTrade"
    return json.dumps({"stream": stream, "data": data | changes}).encode()


def kline(symbol: str, event_us: int, *, interval: str = "1m", **changes: object) -> bytes:
    body = {
        "t": T0, "T": T0 + MINUTE_US - 1, "s": symbol, "i": interval, "f": 1, "L": 2, "o": "1",
        "c": "1", "h": "1", "l": "1", "v": "2", "n": 2, "x": False, "q": "2", "V": "1", "Q": "1",
    }  # fmt: skip
    data = {"e": "kline", "E": event_us, "s": symbol, "k": body | changes}
    stream = f"{symbol.lower()}@kline_{interval}"
    return json.dumps({"stream": stream, "data": data}).encode()
