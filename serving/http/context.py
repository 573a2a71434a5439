"""State shared by the routes of one application."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import structlog
from fastapi import Request

from include.domain.timeframes import MINUTE_US
from include.errors import PermanentError, TransientError
from include.store.instruments import Listing, read_listings
from serving.auth.middleware import host_of
from serving.auth.service import AuthService
from serving.bars.day_prices import DayPriceCache
from serving.bars.latest_bars import LatestBars
from serving.bars.live_bars import LiveBars
from serving.http.response_cache import ResponseCache
from serving.read_pool import ReadPool
from streamer.hub.subscription import CandleUpdate
from streamer.hub.trade_hub import TickHubs
from streamer.runtime.threads import in_thread

log = structlog.get_logger(__name__)

CURRENT_US = 3 * MINUTE_US
LISTINGS_TTL_S = 30.0
"""Older listings are read again on the next request, which still gets the old ones."""
LISTINGS_STALE_S = 600.0
"""Listings older than this are waited for briefly: there was no request for long."""
LISTINGS_WAIT_S = 1.0
LISTINGS_RETRY_S = 5.0
"""After a failed read of listings."""
MAX_ROWS_IN_LOOP = 1_000
"""Larger responses are built in a thread: a thousand rows take 10 to 20 ms."""
MAX_MAKING = 2
"""Threads that build responses; further ones wait."""
MAKING_TIMEOUT_S = 30.0

Result = TypeVar("Result")

SOCKETS_PER_CLIENT = 1_000


@dataclass(slots=True)
class Sockets:
    """WebSocket counters.

    Attributes:
        max_per_client: connections that one client may hold, so that it leaves room for others.
        by_client: open connections by the client's network.
        conflated: counts bar states that newer ones replaced before readers received them.
    """

    max_per_client: int
    open: int = 0
    accepted: int = 0
    by_client: Counter[str] = field(default_factory=Counter)
    conflated: Callable[[], int] = lambda: 0

    def has_room(self, client: str) -> bool:
        """Whether a client may open another connection."""
        return self.by_client[client] < self.max_per_client

    @contextmanager
    def counted(self, client: str) -> Iterator[None]:
        """Count a client's connection while it is open."""
        self.open, self.accepted = self.open + 1, self.accepted + 1
        self.by_client[client] += 1
        try:
            yield
        finally:
            self.open -= 1
            self.by_client[client] -= 1
            if not self.by_client[client]:
                del self.by_client[client]


@dataclass(slots=True)
class Context:
    """What the routes of one application share.

    Attributes:
        streamed: returns the streamed symbols.
        now_us: returns the exchange's time.
        newest: returns the newest minute of a symbol; None if none is in memory.
        condition: returns the market's health.
        prices: of the last 24 hours.
        clock: in seconds.
        allowed_origins: other sites whose pages may send requests.
        ticks: trades and book tickers; None if they are not served.
        statistics: returns the market's figures.
        latest: the newest bars of any timeframe.
        response_cache: responses about closed minutes.
        sockets: WebSocket counters.
        refused: counts WebSockets and gRPC calls of clients with too many, by interface.
        auth: authenticates requests.
        is_remote: the market comes from another process.
    """

    live_bars: LiveBars
    history: ReadPool
    streamed: Callable[[], Iterable[str]]
    now_us: Callable[[], int]
    newest: Callable[[str], CandleUpdate | None]
    condition: Callable[[], dict[str, Any]]
    prices: DayPriceCache
    clock: Callable[[], float]
    allowed_origins: frozenset[str] = frozenset()
    ticks: TickHubs | None = None
    statistics: Callable[[], dict[str, Any]] = dict
    auth: AuthService = field(default_factory=AuthService)
    is_remote: bool = False
    latest: LatestBars = field(init=False)
    response_cache: ResponseCache = field(default_factory=ResponseCache)
    sockets: Sockets = field(default_factory=lambda: Sockets(SOCKETS_PER_CLIENT))
    refused: Counter[str] = field(default_factory=Counter)
    _listings: list[Listing] | None = None
    _newest_listings: dict[str, Listing] = field(default_factory=dict)
    _read_s: float = 0.0
    _due_s: float = 0.0
    _is_failing: bool = False
    _reading: asyncio.Task[list[Listing]] | None = None
    _making: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_MAKING))

    def __post_init__(self) -> None:
        self.latest = LatestBars(self.live_bars)

    def current(self, names: Iterable[str]) -> frozenset[str]:
        """Symbols whose newest minute in memory is current.

        For the others the table may be newer: the streamer dropped them, or is unreachable.
        """
        if self.is_remote and self.condition()["status"] != "well":
            return frozenset()
        min_us = self.now_us() - CURRENT_US
        return frozenset(
            symbol
            for symbol in frozenset(names).intersection(self.streamed())
            if (newest := self.newest(symbol)) is not None and newest.candle.open_time_us >= min_us
        )

    def may_connect(self, origin: str | None, host: str) -> bool:
        """Whether a page of this origin may open a WebSocket; programs send no origin.

        Browsers let any page connect anywhere, so the server must check.
        """
        if origin is None or "*" in self.allowed_origins or origin in self.allowed_origins:
            return True
        return host_of(origin) == host

    async def listings(self) -> list[Listing]:
        """Return all listings, by symbol and start, as of the last read.

        Concurrent requests share one read. Old listings are returned while PostgreSQL is
        unreachable.

        Raises:
            TransientError, PermanentError, TimeoutError: no read has succeeded yet.
        """
        if self._listings is None:
            # A cancelled caller must not cancel the shared read.
            return await asyncio.shield(self._renewal())
        now_s = self.clock()
        if now_s >= self._due_s:
            renewal = self._renewal()
            if now_s - self._read_s > LISTINGS_STALE_S and not self._is_failing:
                await asyncio.wait([renewal], timeout=LISTINGS_WAIT_S)
        return self._listings

    def _renewal(self) -> asyncio.Task[list[Listing]]:
        if self._reading is None:
            self._reading = asyncio.create_task(self._read_listings(), name="listings")
        return self._reading

    async def _read_listings(self) -> list[Listing]:
        now_s = self.clock()
        try:
            found = await self.history.call(read_listings)
        except (TransientError, PermanentError, TimeoutError) as error:
            if self._listings is None:
                raise
            if not self._is_failing:
                log.warning("listings_not_read", error=str(error) or "timeout")
            self._is_failing = True
            self._due_s = self.clock() + LISTINGS_RETRY_S
            return self._listings
        finally:
            self._reading = None
        if self._is_failing:
            log.info("listings_recovered")
        self._is_failing = False
        self._listings = found
        self._newest_listings = {one.instrument.symbol: one for one in found}
        self._read_s, self._due_s = now_s, now_s + LISTINGS_TTL_S
        return found

    async def newest_listings(self) -> Mapping[str, Listing]:
        """The newest listing of each symbol."""
        await self.listings()
        return self._newest_listings

    async def symbols(self) -> frozenset[str]:
        """Symbols that exist: streamed now, or listed at any time."""
        await self.listings()
        return frozenset(self._newest_listings).union(self.streamed())

    async def made(self, make: Callable[[], Result], *, rows: int) -> Result:
        """Build a response with this many rows: directly if they are few, else in a thread.

        Raises:
            TimeoutError: too many others are being built.
        """
        if rows <= MAX_ROWS_IN_LOOP:
            return make()
        async with asyncio.timeout(MAKING_TIMEOUT_S), self._making:
            return await in_thread(make, name="answer")


def context_of(request: Request) -> Context:
    """The context of a request's application."""
    found: Context = request.app.state.context
    return found
