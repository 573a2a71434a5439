"""The candle feeds of all symbols, and the exchange time measured by them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from include.binance.streams.session import MAX_STREAMS
from include.domain.instruments import Market, exchange_symbol_of, market_of
from streamer.candles.aggregation import SymbolAggregator
from streamer.candles.feed import CandleFeed
from streamer.exchange.connection_pool import ConnectionPool

MakeFeed = Callable[[Market, str, Mapping[str, SymbolAggregator]], CandleFeed]
"""Makes a feed of a market, by its name, for aggregators by the exchange's name."""


class CandleFeeds:
    """Streams symbols on as many connections as they need.

    Args:
        make_feed: makes a feed.
        streams_per_symbol: streams that each symbol takes on a connection.
        max_streams: streams that one connection may carry.
    """

    def __init__(
        self, make_feed: MakeFeed, *, streams_per_symbol: int, max_streams: int = MAX_STREAMS
    ) -> None:
        self._pool: ConnectionPool[Market, CandleFeed] = ConnectionPool(
            lambda market, number, members: make_feed(market, f"{market.value}-{number}", members),
            max_symbols=lambda _market: max_streams // streams_per_symbol,
            name="candles",
        )
        self._last: CandleFeed | None = None

    @property
    def feeds(self) -> Sequence[CandleFeed]:
        """The current feeds; the list object is never replaced, so readers may hold it."""
        return self._pool.feeds

    @property
    def now_us(self) -> int:
        """Return the exchange time of the feed that is furthest ahead; 0 before it is known.

        After the last feed has ended its clock continues, because repairs of symbols that are no
        longer streamed are scheduled by this clock.
        """
        feeds = self._pool.feeds or ([] if self._last is None else [self._last])
        return max((feed.now_us for feed in feeds), default=0)

    def feed_of(self, symbol: str) -> CandleFeed:
        """Return the feed of a symbol.

        Raises:
            KeyError: the symbol is not streamed.
        """
        feed = self._pool.feed_of(market_of(symbol), exchange_symbol_of(symbol))
        if feed is None:
            raise KeyError(symbol)
        return feed

    def last_trade_us(self, symbol: str) -> int:
        """Return the time (µs) of a symbol's last trade; 0 without one."""
        feed = self._pool.feed_of(market_of(symbol), exchange_symbol_of(symbol))
        return 0 if feed is None else feed.last_trade_us(symbol)

    def add(self, market: Market, aggregators: Mapping[str, SymbolAggregator]) -> None:
        """Stream further symbols, given as aggregators by the exchange's name."""
        self._pool.add(market, aggregators)

    def remove(self, symbol: str) -> None:
        """Stop streaming a symbol; a connection without symbols is closed."""
        closed = self._pool.remove(market_of(symbol), exchange_symbol_of(symbol))
        self._last = closed or self._last

    async def close_minutes(self) -> bool:
        """Close ended minutes, in parts between other tasks; return whether any were closed."""
        has_closed = False
        for feed in tuple(self._pool.feeds):
            while feed.on_clock():
                has_closed = True
                await asyncio.sleep(0)
        return has_closed

    async def run(self) -> None:
        """Run all connections until cancelled, or until one fails."""
        await self._pool.run()
