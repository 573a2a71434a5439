"""What is done about streams that do not deliver, and how their symbols are called.

Aggregators notice (``streamer.candles.silence`` says when and how often); here it is decided
what follows:
a symbol is subscribed anew once, and if that does not help, its connection is succeeded by a new
one, which nobody else on it notices. A symbol that the exchange itself says is halted is left
alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from include.domain.candles import CandleCandidate, Status
from include.domain.timeframes import from_us
from streamer.candles.feed import Feed
from streamer.health.states import SymbolState, SymbolStates

log = structlog.get_logger(__name__)

ROTATE_EVERY_S = 300.0
"""A connection is succeeded for the sake of dead streams no more often."""


class Watchdog:
    """The states of symbols, and what is done about those that are not well.

    Args:
        states: where they are noted.
        feed_of: the feed that carries a symbol.
        clock_s: a monotonic clock.
    """

    def __init__(
        self,
        states: SymbolStates,
        feed_of: Callable[[str], Feed],
        *,
        rotate_every_s: float = ROTATE_EVERY_S,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._states = states
        self._feed_of = feed_of
        self._rotate_every_s = rotate_every_s
        self._clock_s = clock_s
        self._silent: set[str] = set()
        self._resubscribed: set[str] = set()
        self._rotated_s: dict[str, float] = {}

    def is_silent(self, symbol: str) -> bool:
        """Whether nothing comes of it."""
        return symbol in self._silent

    # --- what aggregators tell

    def doubt(self, symbol: str, exchange_symbol: str, reason: str) -> None:
        """A symbol's streams do not deliver what they should."""
        if self._states.of(symbol) is SymbolState.HALTED:
            return
        if symbol not in self._silent and self._states.enter(symbol, SymbolState.DEAD):
            log.warning("stream_doubted", symbol=symbol, reason=reason)
        feed = self._feed_of(symbol)
        if symbol in self._resubscribed and self._may_rotate(feed):
            feed.connection.rotate(f"streams of {symbol} stay dead: {reason}")
        else:
            self._resubscribed.add(symbol)
            feed.doubt(exchange_symbol)

    def silent(self, symbol: str, since_us: int) -> None:
        """Nothing comes of a symbol; told once, until it speaks again."""
        self._silent.add(symbol)
        if self._states.of(symbol) is not SymbolState.HALTED:
            self._states.enter(symbol, SymbolState.SILENT)
        log.warning("symbol_silent", symbol=symbol, since=from_us(since_us).isoformat())

    def speaks_again(self, symbol: str, since_us: int, until_us: int) -> None:
        """A silent symbol delivers again."""
        self._silent.discard(symbol)
        self._states.enter(symbol, SymbolState.LIVE)
        log.info(
            "symbol_speaks_again",
            symbol=symbol,
            since=from_us(since_us).isoformat(),
            until=from_us(until_us).isoformat(),
        )

    def settled(self, offer: CandleCandidate) -> None:
        """A minute came from a symbol's streams."""
        symbol = offer.candle.symbol
        was = self._states.of(symbol)
        self._states.settled(offer)
        if offer.status is Status.VERIFIED:
            self._silent.discard(symbol)  # a cut may have ended the silence, and told nobody
        if was is SymbolState.LIVE or self._states.of(symbol) is not SymbolState.LIVE:
            return
        if was is SymbolState.DEAD and self._feed_of(symbol).lacks_trades(symbol):
            self._states.enter(symbol, was)  # its klines live, and settle its minutes
            return
        self._resubscribed.discard(symbol)
        if was is SymbolState.DEAD:
            log.info("stream_revived", symbol=symbol)

    # --- what the exchange says

    def halted(self, symbol: str, status: str) -> None:
        """It does not trade."""
        self._states.enter(symbol, SymbolState.HALTED)
        log.warning("symbol_halted", symbol=symbol, status=status)

    def resumed(self, symbol: str) -> None:
        """It trades again."""
        self._silent.discard(symbol)
        self._states.enter(symbol, SymbolState.LIVE)
        log.info("symbol_resumed", symbol=symbol)

    def gone(self, symbol: str, *, is_wanted: bool) -> None:
        """It is streamed no longer: it ceased to trade, or nobody wants it any more."""
        self._silent.discard(symbol)
        self._resubscribed.discard(symbol)
        self._states.end(symbol)
        if is_wanted:
            log.warning("symbol_gone", symbol=symbol)
        else:
            log.info("symbol_removed", symbol=symbol)

    def _may_rotate(self, feed: Feed) -> bool:
        name, now_s = feed.connection.name, self._clock_s()
        if now_s - self._rotated_s.get(name, -self._rotate_every_s) < self._rotate_every_s:
            return False
        self._rotated_s[name] = now_s
        return True
