"""Stream what readers subscribe to, while they do, over own connections of each market.

Raw capture has its own connections: what it writes does not depend on readers.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

import structlog

from include.binance.streams.messages import ControlAnswer, ServerShutdown
from include.binance.streams.session import MAX_STREAMS
from include.config import Settings
from include.domain.instruments import Market, exchange_symbol_of, market_of, symbol_of
from include.domain.timeframes import SECOND_US
from include.errors import PermanentError
from streamer.exchange.connection import StreamConnection
from streamer.exchange.connection_pool import ConnectionPool
from streamer.exchange.feed import Feed
from streamer.hub.trade_hub import TickHub
from streamer.runtime.supervisor import run_together

log = structlog.get_logger(__name__)

POLL_INTERVAL_S = 10.0
"""Interval of the search for quiet streams; changes of subscriptions are handled immediately."""
MAX_QUIET_S = 960.0

Connect = Callable[["OnDemandFeed"], StreamConnection]
"""Makes the connection, given the feed for its callbacks."""


class OnDemandFeed(Feed):
    """Passes the messages of one connection to a hub.

    Args:
        kind: stream of each symbol, such as ``bookTicker``.
        connect: makes the connection.
        names: the exchange's names of symbols.
        quiet_s: a stream without a message for this long is subscribed again, because its
            subscription may be dead on a live connection; the wait doubles each time. None: never.
        now_us: wall clock.
        clock_s: a monotonic clock.
    """

    def __init__(
        self,
        market: Market,
        kind: str,
        connect: Connect,
        *,
        names: Iterable[str] = (),
        quiet_s: float | None,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(market, (kind,))
        self.names: set[str] = set()
        self._quiet_s = quiet_s
        self._now_us = now_us
        self._clock_s = clock_s
        self._quiet: dict[str, tuple[float, float]] = {}
        """Time of a name's last message or subscription, and how long it may be quiet after that.
        """
        self.connection = connect(self)
        self.add(names)

    def add(self, members: Iterable[str]) -> None:
        """Subscribe to further symbols, given by the exchange's names."""
        names = list(members)
        self.names.update(names)
        for name in names:
            self.note_message(name)
        self.connection.subscribe(self.streams_of(names))

    def remove(self, name: str) -> None:
        """Unsubscribe from a symbol."""
        self.names.discard(name)
        self._quiet.pop(name, None)
        self.connection.unsubscribe(self.streams_of([name]))

    def note_message(self, name: str) -> None:
        """Note that the stream of a name delivers."""
        if self._quiet_s is not None:
            self._quiet[name] = self._clock_s(), self._quiet_s

    def resubscribe_quiet(self) -> None:
        """Subscribe again to names that have been quiet for too long."""
        now_s = self._clock_s()
        if not self.connection.is_open:  # a new connection subscribes to everything
            for name in self._quiet:
                self.note_message(name)
            return
        quiet = [one for one, (since_s, for_s) in self._quiet.items() if now_s - since_s >= for_s]
        for one in quiet:
            self._quiet[one] = now_s, min(2 * self._quiet[one][1], MAX_QUIET_S)
        if quiet:
            log.info(
                "quiet_streams_resubscribed",
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

    def on_close(self) -> None:
        """Handle the loss of the connection."""

    @abstractmethod
    def decode(self, data: bytes) -> object:
        """Decode a message.

        Raises:
            PermanentError: it is unusable.
        """

    @abstractmethod
    def on_frame(self, frame: Any, received_us: int, *, is_held: bool) -> None:
        """Handle a message that is no control message, of any symbol."""

    def _on_text(self, data: bytes, received_us: int, *, is_held: bool = False) -> None:
        self.frames += 1
        try:
            frame = self.decode(data)
        except PermanentError as error:
            self.on_bad_frame(error)
            return
        if isinstance(frame, ControlAnswer | ServerShutdown):
            self.on_control(frame)
        else:
            self.on_frame(frame, received_us, is_held=is_held)


def connecting(settings: Settings, url: str, *, name: str, streams: Sequence[str] = ()) -> Connect:
    """Return the function that makes a feed's connection.

    Args:
        streams: streams that belong to no symbol.
    """
    return lambda feed: StreamConnection(
        url,
        name=name,
        streams=streams,
        on_texts=feed.on_texts,
        on_held=feed.on_held,
        on_open=lambda: None,
        on_close=feed.on_close,
        stale_after_s=settings.stale_stream_s,
        rotate_after_s=settings.rotate_after_s,
        proxy=settings.proxy_for(url) or None,
    )


FeedT = TypeVar("FeedT", bound=OnDemandFeed)


class OnDemandStreams(Generic[FeedT]):
    """Streams the symbols that readers of a hub want.

    Args:
        make_feed: makes a feed of a market for the exchange's names of symbols.
        name: of the streams, for logs.
        markets: those that have such streams; symbols of others are ignored.
        max_symbols: symbols of one connection.
        poll_interval_s: interval of the search for quiet streams.
    """

    def __init__(
        self,
        hub: TickHub[Any],
        make_feed: Callable[[Market, Iterable[str]], FeedT],
        *,
        name: str,
        markets: Sequence[Market] = tuple(Market),
        max_symbols: int = MAX_STREAMS,
        poll_interval_s: float = POLL_INTERVAL_S,
    ) -> None:
        self._hub = hub
        self._name = name
        self._markets = markets
        self._poll_interval_s = poll_interval_s
        self._pool: ConnectionPool[Market, FeedT] = ConnectionPool(
            lambda market, _number, members: make_feed(market, members),
            max_symbols=lambda _market: max_symbols,
            name=name,
        )
        self._changed = asyncio.Event()
        hub.on_wanted = self._changed.set

    @property
    def feeds(self) -> Sequence[FeedT]:
        """The current feeds."""
        return self._pool.feeds

    async def run(self) -> None:
        """Stream what readers want until cancelled."""
        await run_together(self._pool.run(), self._follow(), name=self._name)

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
        for market in self._markets:
            new = [one for one in sorted(wanted - streamed) if market_of(one) is market]
            self._pool.add(market, dict.fromkeys(map(exchange_symbol_of, new)))
        for symbol in sorted(streamed - wanted):
            self._pool.remove(market_of(symbol), exchange_symbol_of(symbol))
