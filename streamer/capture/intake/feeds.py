"""Capture's own connections, as many as its symbols need at the moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from include.binance.streams.session import MAX_STREAMS
from include.domain.instruments import Market, exchange_symbol_of, market_of
from streamer.capture.intake.feed import CaptureFeed
from streamer.exchange.connection_ends import end_connections

CARRIED = "raw capture"
POLL_INTERVAL_S = 10.0
"""Fallback poll; changes normally wake it."""

MakeFeed = Callable[[Market, str, Sequence[str], Sequence[str], str], CaptureFeed]
"""Makes a feed of market, URL, kinds of streams, exchange's names and its own name."""


class CaptureFeeds:
    """Distributes symbols over connections and keeps them running.

    Args:
        routes: URLs of a market, each with the kinds of streams that it carries.
        make_feed: makes a feed.
        max_streams: maximum streams of one connection.

    Attributes:
        feeds: the present ones.
    """

    def __init__(
        self,
        routes: Callable[[Market], dict[str, list[str]]],
        make_feed: MakeFeed,
        *,
        max_streams: int = MAX_STREAMS,
    ) -> None:
        self.feeds: list[CaptureFeed] = []
        self._routes = routes
        self._make_feed = make_feed
        self._max_streams = max_streams
        self._made = 0
        self._tasks: dict[CaptureFeed, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()

    def add(self, symbols: Sequence[str]) -> None:
        """Stream further symbols: where there is room, else on new connections."""
        for market in Market:
            names = [exchange_symbol_of(one) for one in symbols if market_of(one) is market]
            for url, kinds in self._routes(market).items():
                self._place(market, url, kinds, names)
        self._changed.set()

    def remove(self, symbol: str) -> None:
        """Stream a symbol no longer; a connection without any is closed."""
        name = exchange_symbol_of(symbol)
        for feed in list(self.feeds):
            if feed.market is market_of(symbol) and name in feed.names:
                feed.remove(name)
                if not feed.names:
                    self.feeds.remove(feed)
        self._changed.set()

    def delivers_since_us(self, market: Market, kind: str, name: str) -> int | None:
        """Return since when a stream is delivered (wall clock); None while it is not.

        Args:
            name: the exchange's name of a symbol.

        Raises:
            KeyError: none of these connections carries it.
        """
        for feed in self.feeds:
            if feed.market is market and kind in feed.kinds and name in feed.names:
                return feed.since_us.get(name)
        raise KeyError(f"{name}@{kind}")

    async def run(self) -> None:
        """Keep the connections running, until cancelled."""
        try:
            while True:
                self._changed.clear()
                for feed in self.feeds:
                    if feed not in self._tasks:
                        self._tasks[feed] = asyncio.ensure_future(feed.connection.run())
                for feed in [one for one in self._tasks if one not in self.feeds]:
                    await end_connections([self._tasks.pop(feed)], of=CARRIED)
                changed = asyncio.ensure_future(self._changed.wait())
                try:
                    await asyncio.wait(
                        [changed, *self._tasks.values()],
                        timeout=POLL_INTERVAL_S,
                        return_when=asyncio.FIRST_COMPLETED,
                    )
                finally:
                    changed.cancel()
                for task in self._tasks.values():
                    if task.done():
                        task.result()  # raises the task's error
        finally:
            await end_connections(self._tasks.values(), of=CARRIED)

    def _place(self, market: Market, url: str, kinds: Sequence[str], names: Sequence[str]) -> None:
        share = self._max_streams // len(kinds)
        left = [
            name
            for name in names
            if not any(feed.carries(market, url, name) for feed in self.feeds)
        ]
        for feed in self.feeds:
            if feed.market is market and feed.url == url and left:
                room = max(0, share - len(feed.names))
                some, left = left[:room], left[room:]
                feed.add(some)
        while left:
            some, left = left[:share], left[share:]
            self._made += 1
            own_name = f"{market.value}-capture-{self._made}"
            self.feeds.append(self._make_feed(market, url, kinds, some, own_name))
