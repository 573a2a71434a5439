"""Revive streams that do not deliver, and track the state of their symbols.

Aggregators detect such streams (``streamer.candles.silence`` defines when). The watchdog first
subscribes again. If that does not help, it rotates the connection, at most every five minutes and
without a gap for other symbols.
Symbols that the exchange reports as halted are ignored.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from include.domain.candles import CandleCandidate, Status
from include.domain.timeframes import from_us
from streamer.candles.feed import CandleFeed
from streamer.health.states import SymbolState, SymbolStates

log = structlog.get_logger(__name__)

ROTATE_INTERVAL_S = 300.0
"""Minimum interval between rotations of one connection because of dead streams."""


class Watchdog:
    """Sets the states of symbols, and acts on dead streams.

    Args:
        feed_of: returns the feed of a symbol.
        rotate_interval_s: minimum interval between rotations of one connection.
        clock_s: a monotonic clock.
    """

    def __init__(
        self,
        states: SymbolStates,
        feed_of: Callable[[str], CandleFeed],
        *,
        rotate_interval_s: float = ROTATE_INTERVAL_S,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._states = states
        self._feed_of = feed_of
        self._rotate_interval_s = rotate_interval_s
        self._clock_s = clock_s
        self._silent: set[str] = set()
        self._resubscribed: set[str] = set()
        self._rotated_s: dict[str, float] = {}

    def is_silent(self, symbol: str) -> bool:
        """Whether no frame of a symbol arrives."""
        return symbol in self._silent

    # --- events of aggregators

    def revive(self, symbol: str, exchange_symbol: str, reason: str) -> None:
        """Subscribe to a symbol's streams again, or rotate the connection if that did not help."""
        if self._states.of(symbol) is SymbolState.HALTED:
            return
        if symbol not in self._silent and self._states.enter(symbol, SymbolState.DEAD):
            log.warning("stream_dead", symbol=symbol, reason=reason)
        feed = self._feed_of(symbol)
        if symbol in self._resubscribed and self._may_rotate(feed):
            feed.connection.rotate(f"streams of {symbol} stay dead: {reason}")
        else:
            self._resubscribed.add(symbol)
            feed.resubscribe(exchange_symbol)

    def symbol_silent(self, symbol: str, since_us: int) -> None:
        """Record a symbol without frames; called once for each silence."""
        self._silent.add(symbol)
        if self._states.of(symbol) is not SymbolState.HALTED:
            self._states.enter(symbol, SymbolState.SILENT)
        log.warning("symbol_silent", symbol=symbol, since=from_us(since_us).isoformat())

    def silence_ended(self, symbol: str, since_us: int, until_us: int) -> None:
        """Record that a silent symbol delivers again."""
        self._silent.discard(symbol)
        self._states.enter(symbol, SymbolState.LIVE)
        log.info(
            "symbol_silence_ended",
            symbol=symbol,
            since=from_us(since_us).isoformat(),
            until=from_us(until_us).isoformat(),
        )

    def candle_closed(self, candidate: CandleCandidate) -> None:
        """Record a candle from a symbol's streams."""
        symbol = candidate.candle.symbol
        before = self._states.of(symbol)
        self._states.candle_closed(candidate)
        if candidate.status is Status.VERIFIED:
            self._silent.discard(symbol)  # a disconnect ends a silence without an event
        if before is SymbolState.LIVE or self._states.of(symbol) is not SymbolState.LIVE:
            return
        if before is SymbolState.DEAD and self._feed_of(symbol).lacks_trades(symbol):
            self._states.enter(symbol, before)  # only its klines are alive
            return
        self._resubscribed.discard(symbol)
        if before is SymbolState.DEAD:
            log.info("stream_revived", symbol=symbol)

    # --- news from the exchange

    def halted(self, symbol: str, status: str) -> None:
        """Record that a symbol does not trade."""
        self._states.enter(symbol, SymbolState.HALTED)
        log.warning("symbol_halted", symbol=symbol, status=status)

    def resumed(self, symbol: str) -> None:
        """Record that a symbol trades again."""
        self._silent.discard(symbol)
        self._states.enter(symbol, SymbolState.LIVE)
        log.info("symbol_resumed", symbol=symbol)

    def removed(self, symbol: str, *, is_wanted: bool) -> None:
        """Remove a symbol that stopped trading (still wanted) or is no longer wanted."""
        self._silent.discard(symbol)
        self._resubscribed.discard(symbol)
        self._states.remove(symbol)
        if is_wanted:
            log.warning("symbol_gone", symbol=symbol)
        else:
            log.info("symbol_removed", symbol=symbol)

    def _may_rotate(self, feed: CandleFeed) -> bool:
        name, now_s = feed.connection.name, self._clock_s()
        if now_s - self._rotated_s.get(name, -self._rotate_interval_s) < self._rotate_interval_s:
            return False
        self._rotated_s[name] = now_s
        return True
