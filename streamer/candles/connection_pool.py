"""The candle connections of the streamer, as many as its symbols need at the moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import structlog

from include.binance.streams.session import MAX_STREAMS
from include.domain.instruments import Market, exchange_symbol_of
from streamer.candles.aggregation import SymbolAggregator
from streamer.candles.feed import Feed
from streamer.exchange.connection import CLOSED_TIMEOUT_S

log = structlog.get_logger(__name__)

POLL_INTERVAL_S = 60.0
"""Changes wake it at once; so often it looks all the same."""

MakeFeed = Callable[[Market, str, dict[str, SymbolAggregator]], Feed]
"""Makes a feed of a market, by its name, for aggregators by the exchange's name."""


class ConnectionPool:
    """Makes feeds, gives them symbols, and keeps their connections running.

    Args:
        make_feed: makes a feed.
        streams_per_symbol: streams each symbol takes on a connection.
        max_streams: most streams one connection may carry.

    Attributes:
        feeds: those there are; the same list for ever, which others may look at.
    """

    def __init__(
        self, make_feed: MakeFeed, *, streams_per_symbol: int, max_streams: int = MAX_STREAMS
    ) -> None:
        self.feeds: list[Feed] = []
        self._make_feed = make_feed
        self._share = max_streams // streams_per_symbol
        self._feed_of: dict[str, Feed] = {}
        self._made: dict[Market, int] = {}
        self._tasks: dict[Feed, asyncio.Task[None]] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._last: Feed | None = None
        """The one that was given up last."""

    @property
    def now_us(self) -> int:
        """The exchange's clock, of the feed that is furthest; 0 where none knows it yet.

        It goes on where no feed is left: what is missing of symbols that are streamed no more is
        still to be asked for, and due by this clock.
        """
        feeds = self.feeds or ([] if self._last is None else [self._last])
        return max((feed.now_us for feed in feeds), default=0)

    def feed_of(self, symbol: str) -> Feed:
        """The feed that carries a symbol."""
        return self._feed_of[symbol]

    def carries(self, symbol: str) -> bool:
        """Whether a feed carries it."""
        return symbol in self._feed_of

    def last_trade_us(self, symbol: str) -> int:
        """Time (µs) of the last trade that its stream brought; 0 where there is none."""
        feed = self._feed_of.get(symbol)
        return 0 if feed is None else feed.last_trade_us(symbol)

    def add(self, market: Market, aggregators: Mapping[str, SymbolAggregator]) -> None:
        """Stream further symbols: where there is room, else on new connections.

        Args:
            aggregators: by the exchange's name.
        """
        names = list(aggregators)
        for feed in self.feeds:
            if feed.market is market and names:
                room = max(0, self._share - len(feed.aggregators))
                some, names = names[:room], names[room:]
                if some:
                    feed.add({name: aggregators[name] for name in some})
                    self._note(feed, [aggregators[name] for name in some])
        while names:
            some, names = names[: self._share], names[self._share :]
            number = self._made[market] = self._made.get(market, 0) + 1
            of_feed = {name: aggregators[name] for name in some}
            feed = self._make_feed(market, f"{market.value}-{number}", of_feed)
            self.feeds.append(feed)
            self._note(feed, list(of_feed.values()))

    def remove(self, symbol: str) -> None:
        """Stream a symbol no longer; a connection without any is closed."""
        feed = self._feed_of.pop(symbol)
        feed.remove(exchange_symbol_of(symbol))
        if not feed.aggregators:
            self.feeds.remove(feed)
            self._last = feed
            log.info("connection_given_up", connection=feed.connection.name)
            self._changed.set()

    async def close_minutes(self) -> bool:
        """Let feeds close minutes that are over, and other work come between; whether some were."""
        has_closed = False
        for feed in tuple(self.feeds):
            while feed.on_clock():
                has_closed = True
                await asyncio.sleep(0)
        return has_closed

    async def run(self) -> None:
        """Keep the connections of all feeds running, until cancelled."""
        try:
            while True:
                self._changed.clear()
                self._start_and_stop()
                changed = asyncio.ensure_future(self._changed.wait())
                try:
                    done, _ = await asyncio.wait(
                        [changed, *self._tasks.values()],
                        timeout=POLL_INTERVAL_S,
                        return_when=asyncio.FIRST_COMPLETED,
                    )
                finally:
                    changed.cancel()
                for task in done - {changed}:
                    task.result()  # raises what ended it
        finally:
            for task in self._tasks.values():
                task.cancel()
            if self._tasks or self._closing:
                _, left = await asyncio.wait(
                    {*self._tasks.values(), *self._closing}, timeout=CLOSED_TIMEOUT_S + 0.25
                )
                if left:
                    log.warning("connections_not_closed", connections=len(left))

    def _note(self, feed: Feed, aggregators: list[SymbolAggregator]) -> None:
        self._feed_of.update((one.symbol, feed) for one in aggregators)
        self._changed.set()

    def _start_and_stop(self) -> None:
        for feed in self.feeds:
            if feed not in self._tasks:
                self._tasks[feed] = asyncio.ensure_future(feed.connection.run())
        for feed in [one for one in self._tasks if one not in self.feeds]:
            task = self._tasks.pop(feed)
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
            task.cancel()
