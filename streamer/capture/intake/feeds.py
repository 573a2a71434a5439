"""Capture's own connections, as many as its symbols currently need."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from include.binance.streams.session import MAX_STREAMS
from include.domain.instruments import Market, exchange_symbol_of, market_of
from streamer.capture.intake.feed import CaptureFeed, streams_beside
from streamer.exchange.connection_pool import ConnectionPool

MakeFeed = Callable[[Market, str, Sequence[str], Collection[str], str], CaptureFeed]
"""Makes a feed from market, URL, kinds of streams, the exchange's symbol names and the feed's name.
"""


class CaptureFeeds:
    """Streams symbols on as many connections as they need.

    Args:
        routes: URLs of a market, each with the kinds of streams that it serves.
        make_feed: makes a feed.
        max_streams: streams that one connection may carry.
    """

    def __init__(
        self,
        routes: Callable[[Market], dict[str, list[str]]],
        make_feed: MakeFeed,
        *,
        max_streams: int = MAX_STREAMS,
    ) -> None:
        self._routes = routes
        self._make_feed = make_feed
        self._made = 0  # feeds of all routes
        self._pool: ConnectionPool[tuple[Market, str], CaptureFeed] = ConnectionPool(
            lambda route, _number, members: self._make(route, members),
            max_symbols=lambda route: _max_symbols(
                route[0], routes(route[0])[route[1]], max_streams
            ),
            name="capture",
        )

    @property
    def feeds(self) -> Sequence[CaptureFeed]:
        """The current feeds; the list object is never replaced, so readers may hold it."""
        return self._pool.feeds

    def add(self, symbols: Sequence[str]) -> None:
        """Stream further symbols."""
        for market in Market:
            names = [exchange_symbol_of(one) for one in symbols if market_of(one) is market]
            for url in self._routes(market):
                self._pool.add((market, url), dict.fromkeys(names))

    def remove(self, symbol: str) -> None:
        """Stop streaming a symbol; a connection without symbols is closed."""
        market, name = market_of(symbol), exchange_symbol_of(symbol)
        for url in self._routes(market):
            if self._pool.feed_of((market, url), name) is not None:
                self._pool.remove((market, url), name)

    def delivers_since_us(self, market: Market, kind: str, name: str) -> int | None:
        """Return the wall clock time since which a stream is delivered; None while it is not.

        Args:
            name: the exchange's name of a symbol.

        Raises:
            KeyError: no connection carries this stream.
        """
        for url, kinds in self._routes(market).items():
            feed = self._pool.feed_of((market, url), name)
            if feed is not None and kind in kinds:
                return feed.since_us.get(name)
        raise KeyError(f"{name}@{kind}")

    async def run(self) -> None:
        """Run all connections until cancelled, or until one fails."""
        await self._pool.run()

    def _make(self, route: tuple[Market, str], members: Collection[str]) -> CaptureFeed:
        market, url = route
        self._made += 1
        name = f"{market.value}-capture-{self._made}"
        return self._make_feed(market, url, self._routes(market)[url], list(members), name)


def _max_symbols(market: Market, kinds: Sequence[str], max_streams: int) -> int:
    return (max_streams - len(streams_beside(market, kinds))) // len(kinds)
