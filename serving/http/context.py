"""What requests are answered from."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import structlog
from fastapi import Request

from include.domain.candles import Candle
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
from streamer.hub.trade_hub import TickHubs
from streamer.runtime.threads import in_thread

log = structlog.get_logger(__name__)

CURRENT_US = 3 * MINUTE_US
LISTINGS_TTL_S = 30.0
"""Listings that are older are read again when somebody asks, who is told the old ones."""
LISTINGS_STALE_S = 600.0
"""Of those that are older, the caller waits a while for new ones: nobody asked for long."""
LISTINGS_WAIT_S = 1.0
LISTINGS_RETRY_S = 5.0
"""After the tables did not tell them."""
MAX_ROWS_IN_LOOP = 1_000
"""Answers of more rows are made in a thread: each thousand of them takes 10 to 20 ms."""
MAX_MAKING = 2
"""Threads that make answers; further answers wait in line."""
MAKING_TIMEOUT_S = 30.0

Result = TypeVar("Result")


@dataclass(slots=True)
class Sockets:
    """WebSocket counters.

    Attributes:
        conflated: counts bar states that newer ones replaced before readers received them.
    """

    open: int = 0
    accepted: int = 0
    conflated: Callable[[], int] = lambda: 0


@dataclass(slots=True)
class Context:
    """One for an application.

    Attributes:
        streamed: symbols that are streamed.
        now_us: the exchange's time.
        newest: the newest minute of a symbol; None where none is in memory.
        condition: how the market is.
        prices: of the day.
        clock: in seconds.
        allowed_origins: of other sites whose pages may ask.
        ticks: trades and best prices; None where there are none.
        statistics: figures of the market.
        latest: the newest bars of any timeframe.
        kept: answers about what is over.
        sockets: WebSockets at present, and accepted so far.
        access: who may ask.
        is_remote: the market is told of by another process.
    """

    live_bars: LiveBars
    history: ReadPool
    streamed: Callable[[], Iterable[str]]
    now_us: Callable[[], int]
    newest: Callable[[str], Candle | None]
    condition: Callable[[], dict[str, Any]]
    prices: DayPriceCache
    clock: Callable[[], float]
    allowed_origins: frozenset[str] = frozenset()
    ticks: TickHubs | None = None
    statistics: Callable[[], dict[str, Any]] = dict
    auth: AuthService = field(default_factory=AuthService)
    is_remote: bool = False
    latest: LatestBars = field(init=False)
    kept: ResponseCache = field(default_factory=ResponseCache)
    sockets: Sockets = field(default_factory=Sockets)
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
        """Symbols whose newest minute in memory is the market's, or nearly.

        Of others the tables may know more: a streamer has dropped them, or cannot be heard.
        """
        if self.is_remote and self.condition()["status"] != "well":
            return frozenset()
        min_us = self.now_us() - CURRENT_US
        return frozenset(
            symbol
            for symbol in frozenset(names).intersection(self.streamed())
            if (newest := self.newest(symbol)) is not None and newest.open_time_us >= min_us
        )

    def may_connect(self, origin: str | None, host: str) -> bool:
        """Whether a page of this origin may open a WebSocket; programs have none.

        Browsers let any page connect anywhere: whom to answer is ours to say.
        """
        if origin is None or "*" in self.allowed_origins or origin in self.allowed_origins:
            return True
        return host_of(origin) == host

    async def listings(self) -> list[Listing]:
        """All listings, by symbol and start, as the tables had them lately.

        Those who ask at once are answered by one reading. What was read once is told as long as
        the tables tell nothing newer: an answer from memory needs no PostgreSQL.

        Raises:
            TransientError, PermanentError, TimeoutError: they could not be read even once.
        """
        if self._listings is None:
            # A caller that leaves does not end what the others wait for.
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
        """Names that can be asked for: streamed now, or listed at any time."""
        await self.listings()
        return frozenset(self._newest_listings).union(self.streamed())

    async def made(self, make: Callable[[], Result], *, rows: int) -> Result:
        """An answer of so many rows: made at once where these are few, else beside the loop.

        Raises:
            TimeoutError: too many others are being made.
        """
        if rows <= MAX_ROWS_IN_LOOP:
            return make()
        async with asyncio.timeout(MAKING_TIMEOUT_S), self._making:
            return await in_thread(make, name="answer")


def context_of(request: Request) -> Context:
    """The context of the application that a request came to."""
    found: Context = request.app.state.context
    return found
