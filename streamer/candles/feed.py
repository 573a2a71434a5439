"""One connection's frames, typed and handed to the aggregators of their symbols."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

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
from streamer.exchange.clock import CARRIED_LAG_S, ExchangeClock
from streamer.exchange.connection import ROTATE_AFTER_S, StreamConnection
from streamer.runtime.histogram import Histogram

log = structlog.get_logger(__name__)

CLOSED_AT_ONCE = 200
"""Symbols whose minutes are closed before others may use the event loop: for a millisecond."""
LOGGED_BAD_FRAMES = 10
"""Bad frames shown in full; after that they are counted only."""


MAX_AHEAD_US = 2 * MINUTE_US
"""A frame from further in the future is not believed alone: its time would be the clock of its
connection until the exchange's had come so far, and nothing would be missed meanwhile."""
MAX_DOUBTED = 8
"""So many of one symbol are believed even where no other speaks."""

BATCH_FRAMES = 64
"""Decoded at a time: enough to save what a call costs, few enough to stay in the core's cache."""
LAG_SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60)
LAG_MASK = 63
"""The lag of every 64th frame is measured, for 1 % of a frame's time; of each, it would be 15 %."""


def stream_names(exchange_symbol: str, *, trade_stream: str, klines: bool) -> list[str]:
    """Streams of one symbol: its trades, and the klines that check them."""
    name = exchange_symbol.lower()
    return [f"{name}@{trade_stream}", *([f"{name}@kline_1m"] if klines else [])]


class TradeTap:
    """Passes a feed's trades on while a reader has subscribed to them.

    Attributes:
        hear: takes a trade; None while no reader has subscribed.
    """

    __slots__ = ("hear",)

    def __init__(self) -> None:
        self.hear: Callable[[AggTrade | Trade], None] | None = None


class Feed:
    """Takes the messages of one connection.

    Args:
        aggregators: by the exchange's name of their symbol.
        tap: also given each trade of these symbols.
        ear: the same, while somebody listens there.
        begin_us: the exchange's time now; 0 where it is not known before the first frame.
        on_missed: given symbol, start, end (µs) and cause where the connection was lost.
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
        tap: Callable[[AggTrade | Trade], None] | None = None,
        ear: TradeTap | None = None,
        on_missed: Callable[[str, int, int, str], None] = lambda *_missed: None,
        begin_us: int = 0,
    ) -> None:
        self.market = market
        self._tap = tap
        self._ear = ear or TradeTap()
        self._on_missed = on_missed
        self._was_cut = False
        self._cut_us = -1
        """The exchange's clock at the last cut."""
        self._told_us = 0
        """The first event time after it: what was missed of all symbols up to then is told."""
        # Without klines a minute must not wait for the next trade to close.
        self._clock = ExchangeClock(begin_us=begin_us, lag_s=CARRIED_LAG_S if klines else 0.0)
        self.exchange_us = 0
        """The exchange's clock: the greatest event time of this connection."""
        self._plausible_us = 0
        """Event times before this one need no further look."""
        self._far: list[str] = []
        """Symbols of frames that told a time far ahead, and were not believed."""
        self.frames = 0
        self.bad_frames = 0
        self.klines = 0
        self.other_frames: Counter[str] = Counter()
        """Frames that are neither trade nor kline, by kind; all others are trades."""
        self.delivering_since_us: int | None = None
        """The exchange's time from which all streams deliver; None while some do not."""
        self.lag_seconds = Histogram(LAG_SECONDS)
        self.unknown: Counter[str] = Counter()
        self._aggregators = dict(aggregators)
        self._removed: set[str] = set()
        """Symbols of which frames may still be on their way."""
        self._trade_stream = trade_stream
        self._klines = klines
        self._not_delivering: set[str] = set()
        self._doubted: list[str] = []
        self.connection = StreamConnection(
            url,
            name=name,
            streams=self._streams_of(aggregators),
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
        """Those this connection feeds."""
        return list(self._aggregators.values())

    def add(self, aggregators: Mapping[str, SymbolAggregator]) -> None:
        """Carry further symbols.

        Args:
            aggregators: by the exchange's name of their symbol.
        """
        self._aggregators.update(aggregators)
        self._removed -= aggregators.keys()
        if self.connection.is_open:
            self._not_delivering |= aggregators.keys()
        self.connection.subscribe(self._streams_of(aggregators))

    def remove(self, exchange_symbol: str) -> None:
        """Carry a symbol no longer."""
        del self._aggregators[exchange_symbol]
        self._not_delivering.discard(exchange_symbol)
        self._removed.add(exchange_symbol)
        self.connection.unsubscribe(self._streams_of([exchange_symbol]))

    @property
    def now_us(self) -> int:
        """The exchange's clock, carried on while no frame comes; 0 where it is not known yet."""
        return self._clock.now_us(self.exchange_us)

    def lacks_trades(self, symbol: str) -> bool:
        """Whether the klines of a symbol tell of trades that do not come."""
        return self._aggregators[exchange_symbol_of(symbol)].without_trades.minutes > 0

    def last_trade_us(self, symbol: str) -> int:
        """Time (µs) of the last trade that came of a symbol; 0 where none did."""
        return self._aggregators[exchange_symbol_of(symbol)].ids.last_trade_us

    def unsettled_us(self, symbol: str) -> tuple[int, int] | None:
        """The minutes of a symbol that are over, not settled and not asked about: half-open."""
        start_us = self._aggregators[exchange_symbol_of(symbol)].unsettled_since_us
        end_us = minute_of(self.now_us)
        return None if start_us is None or start_us >= end_us else (start_us, end_us)

    def on_texts(self, messages: Sequence[bytes]) -> None:
        """Handle messages, in order; what cannot be used is counted and logged, never raised."""
        for first in range(0, len(messages), BATCH_FRAMES):
            self._on_frames(decode_all(messages[first : first + BATCH_FRAMES]))

    def _on_frames(self, frames: Sequence[Frame | PermanentError]) -> None:
        """All that needs no symbol's state is done in place: a call is a fortieth of a frame."""
        aggregators, tap, hear = self._aggregators, self._tap, self._ear.hear
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
                self._on_stranger(frame)  # type: ignore[arg-type]
                continue
            if self._not_delivering and event_us <= self.exchange_us:
                self._note_delivery(frame.symbol, event_us)  # type: ignore[union-attr]
            if kind is not Kline:
                aggregator.on_trade(frame)  # type: ignore[arg-type]
                if tap is not None:
                    tap(frame)  # type: ignore[arg-type]
                if hear is not None:
                    hear(frame)  # type: ignore[arg-type]
            else:
                self.klines += 1
                if frame.body.interval == "1m":  # type: ignore[union-attr]
                    aggregator.on_kline(frame)  # type: ignore[arg-type]

    def _is_plausible(self, symbol: str, event_us: int) -> bool:
        """Whether to set the clock by a frame: a time far ahead must be told by a second symbol."""
        latest_us = self._clock.latest_us(self.exchange_us)
        if latest_us and event_us - latest_us > MAX_AHEAD_US:
            is_alone = set(self._far) <= {symbol} and len(self._far) < MAX_DOUBTED
            if is_alone and not (self._far and len(self._aggregators) == 1):
                self._far.append(symbol)
                ahead_s = (event_us - latest_us) // SECOND_US
                self._count_bad(f"{symbol}: the event time is {ahead_s} s ahead of the exchange's")
                return False
        self._far.clear()
        self._plausible_us = event_us + MAX_AHEAD_US
        return True

    def on_clock(self) -> bool:
        """Let aggregators close what the exchange's clock has passed; whether some did.

        Then others may be left: all close in one instant, and are taken some at a time. A
        connection that is lost tells no time: what it missed is told by the next one.
        """
        now_us = self.now_us if self.connection.is_open else self.exchange_us
        closed = 0
        for aggregator in self._aggregators.values():
            deadline_us = aggregator.next_deadline_us()
            if deadline_us is not None and deadline_us <= now_us:
                closed += aggregator.on_clock(now_us)
                if closed == CLOSED_AT_ONCE:
                    break
        if self._doubted:
            self._resubscribe()
        return closed > 0

    def doubt(self, exchange_symbol: str) -> None:
        """A symbol's streams do not deliver what they should: ask for them again."""
        self._doubted.append(exchange_symbol)

    def _resubscribe(self) -> None:
        """One batch for all symbols doubted at once: control messages are rationed."""
        doubted, self._doubted = self._doubted, []
        if self.connection.is_open:
            self.connection.session.resubscribe(self._streams_of(doubted))

    def _streams_of(self, exchange_symbols: Iterable[str]) -> list[str]:
        return [
            stream
            for exchange_symbol in exchange_symbols
            for stream in stream_names(
                exchange_symbol, trade_stream=self._trade_stream, klines=self._klines
            )
        ]

    def _opened(self) -> None:
        self._not_delivering = set(self._aggregators)
        self._told_us = 0
        self._clock.hold()

    def _closed(self) -> None:
        self.delivering_since_us = None
        self._was_cut = True
        is_news, self._cut_us = self.exchange_us > self._cut_us, self.exchange_us
        for aggregator in self._aggregators.values():
            if is_news:  # else nothing came since the last cut, which was told
                self._miss(aggregator, self.exchange_us)
            aggregator.disconnected()

    def _miss(self, aggregator: SymbolAggregator, until_us: int) -> None:
        """What is not closed yet was not delivered whole.

        Before the first frame the time is not known: it is told once streams deliver again.
        """
        deadline_us = aggregator.next_deadline_us()
        if deadline_us is not None and until_us:
            start_us = min(minute_of(deadline_us) - MINUTE_US, until_us)
            self._on_missed(aggregator.symbol, start_us, until_us + 1, "connection lost")

    def _note_delivery(self, exchange_symbol: str, event_us: int) -> None:
        """A frame after the last acknowledgement shows that all streams deliver by now."""
        if self._was_cut and not self._told_us:
            # Before the clock closes minutes of symbols that are not subscribed yet.
            self._told_us = event_us
            for aggregator in self._aggregators.values():
                self._miss(aggregator, event_us)
        if self.connection.session.is_subscribed:
            waiting, self._not_delivering = self._not_delivering, set()
        elif exchange_symbol in self._not_delivering:
            waiting = {exchange_symbol}
            self._not_delivering.discard(exchange_symbol)
        else:
            return
        if not self._not_delivering:
            self.delivering_since_us = event_us
        for name in waiting:
            if self._was_cut and event_us > self._told_us:
                self._miss(self._aggregators[name], event_us)
            self._aggregators[name].connected(event_us)

    def _on_stranger(self, frame: AggTrade | Kline | Trade) -> None:
        self.klines += isinstance(frame, Kline)
        if frame.symbol not in self._removed:
            self._count_unknown(f"symbol {frame.symbol}")

    def _on_other(
        self, frame: ControlAnswer | ServerShutdown | UnknownFrame | PermanentError
    ) -> None:
        if isinstance(frame, PermanentError):
            self._count_bad(str(frame))
        elif isinstance(frame, ControlAnswer):
            self.other_frames["answer"] += 1
            refused = self.connection.session.on_answer(frame)
            if refused is not None:
                log.error("subscription_refused", connection=self.connection.name, what=refused)
                self.connection.leave(refused)
        elif isinstance(frame, ServerShutdown):
            self.other_frames["shutdown"] += 1
            self.connection.rotate("the exchange announced a shutdown")
        else:
            self.other_frames["unknown"] += 1
            self._count_unknown(f"event {frame.kind}")

    def _count_bad(self, error: str) -> None:
        self.bad_frames += 1
        if self.bad_frames <= LOGGED_BAD_FRAMES:
            log.warning("bad_frame", connection=self.connection.name, error=error)

    def _count_unknown(self, what: str) -> None:
        self.unknown[what] += 1
        if self.unknown[what] == 1:
            log.warning("unknown_frame", connection=self.connection.name, what=what)
        if len(self.unknown) > 1_000:
            self.unknown.clear()
