"""Stream book tickers while readers subscribe to them, one connection for each market.

Raw capture has its own connections: what it writes does not depend on readers.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Sequence

import structlog

from include.binance.streams.book_tickers import BookTicker, decode_captured
from include.binance.streams.messages import ControlAnswer, ServerShutdown, microseconds
from include.binance.streams.session import MAX_STREAMS
from include.config import Settings
from include.domain.instruments import Market, exchange_symbol_of, market_of, symbol_of
from include.domain.timeframes import SECOND_US
from include.errors import PermanentError
from include.jobs.exchange import endpoints_of
from streamer.exchange.connection import StreamConnection
from streamer.exchange.connection_pool import ConnectionPool
from streamer.exchange.feed import Feed
from streamer.hub.ticks import BookTickerUpdate
from streamer.hub.trade_hub import BookTickerHub
from streamer.runtime.supervisor import run_together

log = structlog.get_logger(__name__)

POLL_INTERVAL_S = 10.0
"""Interval of the search for quiet streams; changes of subscriptions are handled immediately."""
QUIET_S = 60.0
"""A book ticker unchanged for this long is subscribed again: its subscription may be dead on a live
connection. The wait doubles each time."""
MAX_QUIET_S = 960.0

MakeConnection = Callable[["BookTickerFeed"], StreamConnection]


class BookTickerFeed(Feed):
    """Passes the book tickers of one connection to the hub.

    Args:
        names: the exchange's names of symbols.
        make_connection: makes the connection, given this feed for its callbacks.
        now_us: wall clock.
        clock_s: a monotonic clock.
    """

    def __init__(
        self,
        market: Market,
        hub: BookTickerHub,
        make_connection: MakeConnection,
        *,
        names: Iterable[str] = (),
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(market, ("bookTicker",))
        self.names: set[str] = set()
        self._hub = hub
        self._now_us = now_us
        self._clock_s = clock_s
        self._quiet: dict[str, tuple[float, float]] = {}
        """Time of a name's last message or subscription, and how long it may be quiet after that.
        """
        self.connection = make_connection(self)
        self.add(names)

    def add(self, members: Iterable[str]) -> None:
        """Subscribe to further symbols, given by the exchange's names."""
        names = list(members)
        self.names.update(names)
        self._quiet |= dict.fromkeys(names, (self._clock_s(), QUIET_S))
        self.connection.subscribe(self.streams_of(names))

    def remove(self, name: str) -> None:
        """Unsubscribe from a symbol."""
        self.names.discard(name)
        self._quiet.pop(name, None)
        self.connection.unsubscribe(self.streams_of([name]))

    def resubscribe_quiet(self) -> None:
        """Subscribe again to names that have been quiet for too long."""
        now_s = self._clock_s()
        if not self.connection.is_open:  # a new connection subscribes to everything
            self._quiet = dict.fromkeys(self.names, (now_s, QUIET_S))
            return
        quiet = [one for one, (since_s, for_s) in self._quiet.items() if now_s - since_s >= for_s]
        for one in quiet:
            self._quiet[one] = now_s, min(2 * self._quiet[one][1], MAX_QUIET_S)
        if quiet:
            log.info(
                "book_tickers_resubscribed",
                connection=self.connection.name,
                symbols=len(quiet),
            )
            self.connection.session.resubscribe(self.streams_of(sorted(quiet)))

    def on_texts(self, messages: Sequence[bytes]) -> None:
        """Handle messages in order; bad ones are counted and logged, never raised."""
        received_us = self._now_us()
        for data in messages:
            self._on_text(data, received_us)

    def on_held(self, messages: Sequence[bytes], ages_s: Sequence[float]) -> None:
        """Handle messages that a successor received before taking over: mostly repeats."""
        now_us = self._now_us()
        for data, age_s in zip(messages, ages_s, strict=True):
            self._on_text(data, now_us - round(age_s * SECOND_US), is_held=True)

    def _on_text(self, data: bytes, received_us: int, *, is_held: bool = False) -> None:
        self.frames += 1
        try:
            frame = decode_captured(data)
        except PermanentError as error:
            self.on_bad_frame(error)
            return
        if type(frame) is BookTicker:
            if frame.symbol in self.names:
                self._on_book_ticker(frame, received_us, is_held=is_held)
        elif isinstance(frame, ControlAnswer | ServerShutdown):
            self.on_control(frame)

    def _on_book_ticker(self, ticker: BookTicker, received_us: int, *, is_held: bool) -> None:
        self._quiet[ticker.symbol] = self._clock_s(), QUIET_S
        symbol = symbol_of(self.market, ticker.symbol)
        newest = self._hub.newest(symbol)
        if newest is not None and (
            newest.update_id == ticker.update_id
            or (is_held and ticker.update_id < newest.update_id)
        ):
            return
        self._hub.publish(
            BookTickerUpdate(
                symbol,
                ticker.update_id,
                ticker.bid_price,
                ticker.bid_quantity,
                ticker.ask_price,
                ticker.ask_quantity,
                microseconds(ticker.event_time) if ticker.event_time else None,
                received_us,
            )
        )


def connect_book_tickers(
    settings: Settings, market: Market, hub: BookTickerHub, names: Iterable[str]
) -> BookTickerFeed:
    """Create a feed with a connection to the exchange configured in the settings."""
    # USD-M serves book tickers at the URL of single trades.
    url = endpoints_of(settings, market).stream_url_for("trade")
    return BookTickerFeed(
        market,
        hub,
        lambda feed: StreamConnection(
            url,
            name=f"{market.value}-book-tickers",
            streams=(),
            on_texts=feed.on_texts,
            on_held=feed.on_held,
            on_open=lambda: None,
            on_close=lambda: None,
            stale_after_s=settings.stale_stream_s,
            rotate_after_s=settings.rotate_after_s,
            proxy=settings.proxy_for(url) or None,
        ),
        names=names,
    )


MakeFeed = Callable[[Market, Iterable[str]], BookTickerFeed]
"""Makes a feed of a market for the exchange's names of symbols."""


class BookTickers:
    """Streams the book tickers that readers have subscribed to.

    Args:
        make_feed: makes a feed.
        poll_interval_s: interval of the search for quiet streams.
    """

    def __init__(
        self,
        hub: BookTickerHub,
        make_feed: MakeFeed,
        *,
        poll_interval_s: float = POLL_INTERVAL_S,
    ) -> None:
        self._hub = hub
        self._poll_interval_s = poll_interval_s
        self._pool: ConnectionPool[Market, BookTickerFeed] = ConnectionPool(
            lambda market, _number, members: make_feed(market, members),
            max_symbols=lambda _market: MAX_STREAMS,
            name="book_tickers",
        )
        self._changed = asyncio.Event()
        hub.on_wanted = self._changed.set

    @property
    def feeds(self) -> Sequence[BookTickerFeed]:
        """The current feeds."""
        return self._pool.feeds

    async def run(self) -> None:
        """Stream the book tickers wanted by readers until cancelled."""
        await run_together(self._pool.run(), self._follow(), name="book_tickers")

    async def _follow(self) -> None:
        while True:
            self._changed.clear()
            self._adapt()
            for feed in self._pool.feeds:
                feed.resubscribe_quiet()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._poll_interval_s):
                    await self._changed.wait()

    def _adapt(self) -> None:
        """Subscribe to the wanted symbols and to no others."""
        wanted = self._hub.wanted
        streamed = {symbol_of(feed.market, name) for feed in self.feeds for name in feed.names}
        for market in Market:
            new = [one for one in sorted(wanted - streamed) if market_of(one) is market]
            self._pool.add(market, dict.fromkeys(map(exchange_symbol_of, new)))
        for symbol in sorted(streamed - wanted):
            self._pool.remove(market_of(symbol), exchange_symbol_of(symbol))
