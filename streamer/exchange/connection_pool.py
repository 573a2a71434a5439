"""Spread the streams of symbols over connections, as many as they currently need."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping
from typing import Any, Generic, Protocol, TypeVar

import structlog

from streamer.exchange.connection import CLOSED_TIMEOUT_S
from streamer.runtime.supervisor import Supervisor

log = structlog.get_logger(__name__)


class PooledFeed(Hashable, Protocol):
    """A feed of one connection, for symbols given by the exchange's names."""

    @property
    def connection(self) -> Any: ...

    @property
    def names(self) -> Collection[str]: ...

    def add(self, members: Mapping[str, Any]) -> None: ...

    def remove(self, name: str) -> None: ...


Route = TypeVar("Route", bound=Hashable)
FeedT = TypeVar("FeedT", bound=PooledFeed)


class ConnectionPool(Generic[Route, FeedT]):
    """Makes feeds, assigns symbols to them and runs their connections.

    A route is what the symbols of one connection share: their market, or their URL.

    Args:
        make_feed: makes a feed of a route, with a unique number.
        max_symbols: symbols that one connection of a route may carry.
        name: of the kind of streams, for the log.

    Attributes:
        feeds: the current feeds; the list object is never replaced, so readers may hold it.
    """

    def __init__(
        self,
        make_feed: Callable[[Route, int, Mapping[str, Any]], FeedT],
        *,
        max_symbols: Callable[[Route], int],
        name: str,
    ) -> None:
        self.feeds: list[FeedT] = []
        self._make_feed = make_feed
        self._max_symbols = max_symbols
        self._name = name
        self._feed_of: dict[tuple[Route, str], FeedT] = {}
        self._route_of: dict[FeedT, Route] = {}
        self._made: dict[Route, int] = {}
        self._supervisor: Supervisor | None = None

    def feed_of(self, route: Route, name: str) -> FeedT | None:
        """Return the feed that carries a symbol, by the exchange's name; None without one."""
        return self._feed_of.get((route, name))

    def add(self, route: Route, members: Mapping[str, Any]) -> None:
        """Stream further symbols, on connections with room or on new ones.

        Args:
            members: data that feeds need for each symbol, by the exchange's name. Symbols that are
                already streamed stay on their connection.
        """
        left = [name for name in members if (route, name) not in self._feed_of]
        capacity = self._max_symbols(route)
        for feed in [one for one in self.feeds if self._route_of[one] == route]:
            some, left = _split(left, capacity - len(feed.names))
            if some:
                feed.add({name: members[name] for name in some})
                self._feed_of |= dict.fromkeys(((route, name) for name in some), feed)
        while left:
            some, left = _split(left, capacity)
            number = self._made[route] = self._made.get(route, 0) + 1
            feed = self._make_feed(route, number, {name: members[name] for name in some})
            self._feed_of |= dict.fromkeys(((route, name) for name in some), feed)
            self._route_of[feed] = route
            self.feeds.append(feed)
            self._start(feed)

    def remove(self, route: Route, name: str) -> FeedT | None:
        """Stop streaming a symbol and close a connection without symbols.

        Returns:
            the feed that was closed, if any.
        """
        feed = self._feed_of.pop((route, name))
        feed.remove(name)
        if feed.names:
            return None
        self.feeds.remove(feed)
        del self._route_of[feed]
        log.info("connection_released", connection=feed.connection.name)
        if self._supervisor is not None:
            self._supervisor.cancel(feed)
        return feed

    async def run(self) -> None:
        """Run all connections until cancelled, or until one fails."""
        async with Supervisor(self._name, cancel_timeout_s=CLOSED_TIMEOUT_S + 0.25) as tasks:
            self._supervisor = tasks
            try:
                for feed in self.feeds:
                    self._start(feed)
                await tasks.wait()
            finally:
                self._supervisor = None

    def _start(self, feed: FeedT) -> None:
        if self._supervisor is not None:
            self._supervisor.start(feed.connection.run(), key=feed)


def _split(names: list[str], count: int) -> tuple[list[str], list[str]]:
    count = max(0, count)
    return names[:count], names[count:]
