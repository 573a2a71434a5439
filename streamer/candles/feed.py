"""Decode one connection's trades and klines and pass them to the aggregators of their symbols."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import structlog

from include.binance.streams.handover import event_us
from include.binance.streams.messages import (
    FIRST_US,
    AggTrade,
    ControlAnswer,
    Frame,
    Kline,
    ServerShutdown,
    Trade,
    UnknownFrame,
    decode_all,
)
from include.domain.instruments import Market, exchange_symbol_of
from include.domain.timeframes import MINUTE_US, SECOND_US, minute_of
from include.errors import PermanentError
from streamer.candles.aggregation import SymbolAggregator
from streamer.candles.events import CONNECTION_LOST
from streamer.exchange.clock import CARRIED_LAG_S, ExchangeClock
from streamer.exchange.connection import ROTATE_AFTER_S, StreamConnection
from streamer.exchange.feed import Feed
from streamer.runtime.histogram import Histogram

log = structlog.get_logger(__name__)

CLOSED_PER_TURN = 200
"""Symbols whose minutes are closed before other tasks run: about a millisecond."""
MAX_AHEAD_US = 2 * MINUTE_US
"""Maximum time by which one frame's event time may be in the future. Beyond it a second symbol or
frame must confirm it: it would stop the connection's clock until the exchange's caught up, and no
gap would be noticed in the meantime."""
MAX_DOUBTED = 8
"""A future timestamp is accepted after this many frames of one symbol."""
MAX_UNKNOWN = 1_000
"""Distinct unknown frames remembered, each logged once."""
BATCH_FRAMES = 64
"""Frames decoded at a time: enough to spread the cost of a call, few enough for the core's cache.
"""
LAG_SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60)
LAG_MASK = 63
"""The lag is measured for every 64th frame, which costs 1 % of a frame's time instead of 15 %."""


def stream_kinds(trade_stream: str, *, klines: bool) -> tuple[str, ...]:
    """Return the stream kinds of each symbol: its trades, and the klines that verify them."""
    return (trade_stream, "kline_1m") if klines else (trade_stream,)


class TradeTap:
    """Passes a feed's trades to readers.

    Attributes:
        on_trade: called with each trade; None without subscribers.
    """

    __slots__ = ("on_trade",)

    def __init__(self) -> None:
        self.on_trade: Callable[[AggTrade | Trade], None] | None = None


class CandleFeed(Feed):
    """Handles the frames of one connection.

    Args:
        aggregators: by the exchange's name of their symbol.
        capture: also called with each trade of these symbols.
        trade_tap: passes trades to readers.
        begin_us: exchange time now; 0 if unknown before the first frame.
        on_missed: called with symbol, start, end (µs) and cause after a disconnect.

    Attributes:
        exchange_us: the greatest event time of this connection.
        delivering_since_us: exchange time since which all streams deliver; None if some do not.
        other_frames: frames that are neither trade nor kline, by kind.
    """

    def __init__(
        self,
        url: str,
        market: Market,
        aggregators: Mapping[str, SymbolAggregator],
        *,
        name: str,
        trade_stream: str,
        klines: bool,
        stale_after_s: float,
        rotate_after_s: float = ROTATE_AFTER_S,
        proxy: str | None = None,
        capture: Callable[[AggTrade | Trade], None] | None = None,
        trade_tap: TradeTap | None = None,
        on_missed: Callable[[str, int, int, str], None] = lambda *_missed: None,
        begin_us: int = 0,
    ) -> None:
        super().__init__(market, stream_kinds(trade_stream, klines=klines))
        self.klines = 0
        self.other_frames: Counter[str] = Counter()
        self.unknown: Counter[str] = Counter()
        self.delivering_since_us: int | None = None
        self.exchange_us = 0
        self.lag_seconds = Histogram(LAG_SECONDS)
        self._capture = capture
        self._trade_tap = trade_tap or TradeTap()
        self._on_missed = on_missed
        self._has_disconnected = False
        self._disconnected_us = -1  # exchange time of the last disconnect
        self._reported_us = 0
        """First event time after the disconnect; the gap up to here has been reported for all
        symbols."""
        # Without klines, a minute must be closed even if no later trade arrives.
        self._clock = ExchangeClock(begin_us=begin_us, lag_s=CARRIED_LAG_S if klines else 0.0)
        self._plausible_us = 0  # event times before this one need no check
        self._doubted_ahead: list[str] = []  # symbols of frames too far in the future
        self._aggregators = dict(aggregators)
        self._removed: set[str] = set()  # removed symbols, of which frames may still arrive
        self._not_delivering: set[str] = set()
        self._to_resubscribe: list[str] = []
        self.connection = StreamConnection(
            url,
            name=name,
            streams=self.streams_of(aggregators),
            on_texts=self.on_texts,
            on_open=self._opened,
            on_close=self._closed,
            stale_after_s=stale_after_s,
            has_delivered=lambda frame: self.exchange_us >= event_us(frame),
            rotate_after_s=rotate_after_s,
            proxy=proxy,
        )

    @property
    def aggregators(self) -> Sequence[SymbolAggregator]:
        """The aggregators of this connection's symbols."""
        return list(self._aggregators.values())

    @property
    def names(self) -> Sequence[str]:
        """The exchange's names of this connection's symbols."""
        return list(self._aggregators)

    def add(self, members: Mapping[str, SymbolAggregator]) -> None:
        """Subscribe to further symbols, given as aggregators by the exchange's name."""
        self._aggregators.update(members)
        self._removed -= members.keys()
        if self.connection.is_open:
            self._not_delivering |= members.keys()
        self.connection.subscribe(self.streams_of(members))

    def remove(self, name: str) -> None:
        """Unsubscribe from a symbol."""
        del self._aggregators[name]
        self._not_delivering.discard(name)
        self._removed.add(name)
        self.connection.unsubscribe(self.streams_of([name]))

    def resubscribe(self, name: str) -> None:
        """Subscribe to a symbol's streams again, with the next tick."""
        self._to_resubscribe.append(name)

    @property
    def now_us(self) -> int:
        """Return the exchange time, carried on while no frame arrives; 0 before it is known."""
        return self._clock.now_us(self.exchange_us)

    def lacks_trades(self, symbol: str) -> bool:
        """Whether a symbol's klines count trades that do not arrive."""
        return self._aggregators[exchange_symbol_of(symbol)].without_trades.minutes > 0

    def last_trade_us(self, symbol: str) -> int:
        """Time (µs) of a symbol's last trade; 0 before the first."""
        return self._aggregators[exchange_symbol_of(symbol)].ids.last_trade_us

    def unfinished_us(self, symbol: str) -> tuple[int, int] | None:
        """Return a symbol's ended minutes that were neither emitted nor requested, half-open."""
        start_us = self._aggregators[exchange_symbol_of(symbol)].unfinished_since_us
        end_us = minute_of(self.now_us)
        return None if start_us is None or start_us >= end_us else (start_us, end_us)

    # --- frames

    def on_texts(self, messages: Sequence[bytes]) -> None:
        """Handle messages in order; bad ones are counted and logged, never raised."""
        for first in range(0, len(messages), BATCH_FRAMES):
            self._on_frames(decode_all(messages[first : first + BATCH_FRAMES]))

    def _on_frames(self, frames: Sequence[Frame | PermanentError]) -> None:
        """Handle decoded messages. Common cases are inlined: a call costs 2.5 % of a frame."""
        aggregators, capture = self._aggregators, self._capture
        on_trade = self._trade_tap.on_trade
        numbered = enumerate(frames, self.frames)
        self.frames += len(frames)
        for number, frame in numbered:
            kind = type(frame)
            if not (kind is AggTrade or kind is Kline or kind is Trade):
                self._on_other(frame)  # type: ignore[arg-type]
                continue
            event_us = at if (at := frame.event_time) >= FIRST_US else at * 1000  # type: ignore[union-attr]
            if event_us > self.exchange_us and (
                event_us < self._plausible_us or self._is_plausible(frame.symbol, event_us)  # type: ignore[union-attr]
            ):
                self.exchange_us = event_us
            if not number & LAG_MASK:
                self.lag_seconds.observe(max(0.0, time.time() - event_us / SECOND_US))
            aggregator = aggregators.get(frame.symbol)  # type: ignore[union-attr]
            if aggregator is None:
                self._on_unknown_symbol(frame)  # type: ignore[arg-type]
                continue
            if self._not_delivering and event_us <= self.exchange_us:
                self._note_delivery(frame.symbol, event_us)  # type: ignore[union-attr]
            if kind is not Kline:
                aggregator.on_trade(frame)  # type: ignore[arg-type]
                if capture is not None:
                    capture(frame)  # type: ignore[arg-type]
                if on_trade is not None:
                    on_trade(frame)  # type: ignore[arg-type]
            else:
                self.klines += 1
                if frame.body.interval == "1m":  # type: ignore[union-attr]
                    aggregator.on_kline(frame)  # type: ignore[arg-type]

    def _is_plausible(self, symbol: str, event_us: int) -> bool:
        """Whether a frame may set the clock; a second symbol must confirm a time far ahead."""
        latest_us = self._clock.latest_us(self.exchange_us)
        if latest_us and event_us - latest_us > MAX_AHEAD_US:
            doubted = self._doubted_ahead
            is_alone = set(doubted) <= {symbol} and len(doubted) < MAX_DOUBTED
            if is_alone and not (doubted and len(self._aggregators) == 1):
                doubted.append(symbol)
                ahead_s = (event_us - latest_us) // SECOND_US
                self.on_bad_frame(
                    f"{symbol}: the event time is {ahead_s} s ahead of the exchange's"
                )
                return False
        self._doubted_ahead.clear()
        self._plausible_us = event_us + MAX_AHEAD_US
        return True

    def _on_unknown_symbol(self, frame: AggTrade | Kline | Trade) -> None:
        self.klines += isinstance(frame, Kline)
        if frame.symbol not in self._removed:
            self._count_unknown(f"symbol {frame.symbol}")

    def _on_other(
        self, frame: ControlAnswer | ServerShutdown | UnknownFrame | PermanentError
    ) -> None:
        if isinstance(frame, PermanentError):
            self.on_bad_frame(frame)
        elif isinstance(frame, UnknownFrame):
            self.other_frames["unknown"] += 1
            self._count_unknown(f"event {frame.kind}")
        else:
            self.other_frames["answer" if isinstance(frame, ControlAnswer) else "shutdown"] += 1
            self.on_control(frame)

    def _count_unknown(self, what: str) -> None:
        self.unknown[what] += 1
        if self.unknown[what] == 1:
            log.warning("unknown_frame", connection=self.connection.name, what=what)
        if len(self.unknown) > MAX_UNKNOWN:
            self.unknown.clear()

    # --- exchange time

    def on_clock(self) -> bool:
        """Close minutes that have ended; return whether some were closed, and others may remain.

        The minutes of all symbols end in the same instant, so they are closed in parts. A
        disconnected feed has no current time: the next connection reports what was missed.
        """
        now_us = self.now_us if self.connection.is_open else self.exchange_us
        closed = 0
        for aggregator in self._aggregators.values():
            deadline_us = aggregator.next_deadline_us()
            if deadline_us is not None and deadline_us <= now_us:
                closed += aggregator.on_clock(now_us)
                if closed == CLOSED_PER_TURN:
                    break
        if self._to_resubscribe:
            self._send_resubscriptions()
        return closed > 0

    def _send_resubscriptions(self) -> None:
        """Send one batch for all symbols: control messages are rate-limited."""
        names, self._to_resubscribe = self._to_resubscribe, []
        if self.connection.is_open:
            self.connection.session.resubscribe(self.streams_of(names))

    # --- the connection

    def _opened(self) -> None:
        self._not_delivering = set(self._aggregators)
        self._reported_us = 0
        self._clock.hold()

    def _closed(self) -> None:
        self.delivering_since_us = None
        self._has_disconnected = True
        had_frames = self.exchange_us > self._disconnected_us
        self._disconnected_us = self.exchange_us
        for aggregator in self._aggregators.values():
            if had_frames:  # otherwise the gap is reported already
                self._report_missed(aggregator, self.exchange_us)
            aggregator.disconnected()

    def _note_delivery(self, name: str, event_us: int) -> None:
        """Record which symbols deliver: all, once every subscription is acknowledged."""
        if self._has_disconnected and not self._reported_us:
            # Before the clock can close minutes of symbols that are not subscribed yet.
            self._reported_us = event_us
            for aggregator in self._aggregators.values():
                self._report_missed(aggregator, event_us)
        if self.connection.session.is_subscribed:
            delivering, self._not_delivering = self._not_delivering, set()
        elif name in self._not_delivering:
            delivering = {name}
            self._not_delivering.discard(name)
        else:
            return
        if not self._not_delivering:
            self.delivering_since_us = event_us
        for one in delivering:
            if self._has_disconnected and event_us > self._reported_us:
                self._report_missed(self._aggregators[one], event_us)
            self._aggregators[one].connected(event_us)

    def _report_missed(self, aggregator: SymbolAggregator, until_us: int) -> None:
        """Report the minutes that are not closed yet as missed.

        Before the first frame the time is unknown; minutes are then reported once streams deliver
        again.
        """
        deadline_us = aggregator.next_deadline_us()
        if deadline_us is not None and until_us:
            start_us = min(minute_of(deadline_us) - MINUTE_US, until_us)
            self._on_missed(aggregator.symbol, start_us, until_us + 1, CONNECTION_LOST)
