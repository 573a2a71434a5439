"""What a simulated exchange delivered: which minutes of a symbol no fault has touched.

The streamer can only detect a wrong closed kline where it has every trade of the minute. Whether it
had them is decided here by the exchange's side alone: a connection that carried the symbol's trades
and klines before, during and after the minute, without a fault of their frames.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from include.domain.instruments import Market, exchange_symbol_of, market_of
from include.domain.timeframes import MINUTE_US, minute_of
from simulator.faults.plan import Fault
from simulator.server import ExchangeThread
from tests.chaos.oracle.capture.exchanged import trades_of
from tests.chaos.oracle.ledgers import exchange_ids

HARMLESS: Final = frozenset({"duplicate", "unknown", "wrong_kline"})
"""Faults of frames after which every trade and kline still arrives, once and in order."""
CLOSED_WITHIN_US: Final = 5_000_000
"""A closed kline is due at most this long after its minute."""
SLACK_US: Final = 1_000_000
"""Frames are due some milliseconds after their event."""
SEARCHED_US: Final = 120 * MINUTE_US
"""How far back the last trade before a minute is searched."""
COLUMNS_OF: Final[Mapping[str, frozenset[str]]] = {
    "volume": frozenset({"volume", "quote_volume"}),
    "close": frozenset({"close"}),
    "trades": frozenset({"trade_count"}),
}
"""What each form of the fault `wrong_kline` changes."""

Span = tuple[int, int]
Clock = Callable[[], int]


class Delivered:
    """Records subscriptions and hits of one exchange from now on.

    Attributes:
        disturbed_us: spans in which something else kept the streamer from reading, such as a
            strike or a lossy network.
    """

    def __init__(self, exchange: ExchangeThread) -> None:
        self.disturbed_us: list[Span] = []
        self._now_us: Clock = exchange.clock.now_us
        self._exchange = exchange
        self._hits: dict[tuple[str, str], list[int]] = defaultdict(list)
        self._wrong: dict[tuple[str, str, int], set[str]] = defaultdict(set)
        self._open: dict[tuple[str, str, int], int] = {}
        self._spans: dict[tuple[str, str, int], list[Span]] = defaultdict(list)
        exchange.frame_faults.on_hit = self.note_hit
        for name, server in exchange.stream_servers.items():
            exchange.call(self._watch, name, server.hub)

    def is_whole(self, symbol: str, minute_us: int) -> bool:
        """Whether some connection delivered every trade of a minute, the last one before it, whose
        id shows that none is missing, and the closed kline."""
        market, name = market_of(symbol).value, exchange_symbol_of(symbol).lower()
        start_us = self._last_trade_us(symbol, minute_us) - SLACK_US
        end_us = minute_us + MINUTE_US + CLOSED_WITHIN_US
        streams = [f"{name}@aggTrade", f"{name}@kline_1m"]
        spans = [*self.disturbed_us, *self._exchange.stream_servers[market].withheld_us]
        if any(first < end_us and last > start_us for first, last in spans):
            return False
        for stream in streams:
            if any(start_us <= due_us < end_us for due_us in self._hits[market, stream]):
                return False
        carried = [self._carriers(market, one, start_us, end_us) for one in streams]
        return bool(carried[0] & carried[1])

    def wrong_kline(self, symbol: str, minute_us: int) -> set[str]:
        """Return the forms in which the closed kline of a minute may have been wrong."""
        market, name = market_of(symbol).value, exchange_symbol_of(symbol).lower()
        return self._wrong.get((market, f"{name}@kline_1m", minute_us), set())

    def undetectable(self, symbol: str, minute_us: int) -> frozenset[str]:
        """Return the columns that a wrong closed kline may have, as no trades contradict it."""
        forms = self.wrong_kline(symbol, minute_us)
        if not forms or (market_of(symbol) is Market.SPOT and self.is_whole(symbol, minute_us)):
            return frozenset()
        return frozenset().union(*(COLUMNS_OF[form] for form in forms))

    def trade_ids(self, symbol: str, minute_us: int) -> tuple[int, int]:
        """Return the first and last trade id of a minute; −1 without trades."""
        return exchange_ids(self._exchange, symbol, minute_us)

    # --- the exchange's side

    def note_hit(self, fault: Fault, market: str, stream: str, due_us: int) -> None:
        """Record that a fault changed a frame."""
        if fault.kind.name == "wrong_kline":
            if due_us % MINUTE_US < CLOSED_WITHIN_US:
                minute_us = minute_of(due_us - CLOSED_WITHIN_US)
                self._wrong[market, stream, minute_us].add(str(fault.parameters["form"]))
        elif fault.kind.name not in HARMLESS:
            self._hits[market, stream].append(due_us)

    def _last_trade_us(self, symbol: str, before_us: int) -> int:
        since_us = before_us - SEARCHED_US
        times = trades_of(self._exchange, "agg_trades", symbol, since_us, before_us)
        return max((time_us for time_us, _ in times), default=since_us)

    def _watch(self, market: str, hub: Any) -> None:
        subscribe, unsubscribe = hub.subscribe, hub.unsubscribe

        def subscribed(listener: object, streams: Iterable[str]) -> None:
            names = tuple(streams)
            for stream in names:
                self._open.setdefault((market, stream, id(listener)), self._now_us())
            subscribe(listener, names)

        def unsubscribed(listener: object, streams: Iterable[str]) -> None:
            names = tuple(streams)
            for stream in names:
                key = (market, stream, id(listener))
                if (since_us := self._open.pop(key, None)) is not None:
                    self._spans[key].append((since_us, self._now_us()))
            unsubscribe(listener, names)

        hub.subscribe, hub.unsubscribe = subscribed, unsubscribed

    def _carriers(self, market: str, stream: str, start_us: int, end_us: int) -> set[int]:
        """Connections that carried a stream throughout a span."""
        closed = {
            key[2]
            for key, spans in self._spans.copy().items()
            if key[:2] == (market, stream)
            and any(first <= start_us and last >= end_us for first, last in spans)
        }
        opened = {
            key[2]
            for key, since_us in self._open.copy().items()
            if key[:2] == (market, stream) and since_us <= start_us
        }
        return closed | opened
