"""Request the snapshots that order books need, within a part of the request weight.

A thousand levels of a hundred symbols cost most of a minute's weight, which the candles' repairs
need, too. So requests are spread: a few at once, then one every 1.25 s for each market, which is 40
% of the weight of spot and of USD-M.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from include.backoff import Backoff
from include.config import Settings
from include.domain.books.order_book import BookSnapshot
from include.domain.instruments import Market, exchange_symbol_of, market_of
from include.jobs.exchange import open_shared_rest
from streamer.hub.books.live_books import LiveBooks
from streamer.hub.books.synced_book import SyncedBook
from streamer.runtime.refusals import Refusals
from streamer.runtime.rest_queue import (
    Failures,
    RestCalls,
    RestQueue,
    RestRequest,
    RetryLaterError,
)

log = structlog.get_logger(__name__)

POLL_S = 0.1
MAX_CALLS = 2
"""Requests at a time."""
BURST = 8
"""Requests that may follow one another without a pause, for each market."""
INTERVAL_S = 1.25
"""Pause between further requests to a market."""
CALL_TIMEOUT_S = 200.0
"""Timeout of a request, which may wait two minutes for weight."""
BACKOFF = Backoff(first_s=1.0, max_s=60.0, min_s=0.2)
GIVEN_UP_S = 600.0
"""Pause after a refusal for good, such as an unknown symbol: the stream may still deliver."""


class _Allowance:
    """Lets a burst of requests pass, then one in an interval."""

    def __init__(self, burst: int, interval_s: float) -> None:
        self._burst = burst
        self._interval_s = interval_s
        self._left = float(burst)
        self._at_s: float | None = None

    def take(self, now_s: float) -> bool:
        if self._at_s is not None:
            self._left = min(self._burst, self._left + (now_s - self._at_s) / self._interval_s)
        self._at_s = now_s
        if self._left < 1:
            return False
        self._left -= 1
        return True


@dataclass
class BookSnapshots:
    """Requests a snapshot for each book that needs one.

    Attributes:
        fetch: requests the snapshot of a symbol; blocking. Raises TransientError to be repeated,
            PermanentError if that is pointless.
        burst, interval_s: pace of the requests to a market.
    """

    books: LiveBooks
    fetch: Callable[[str], BookSnapshot]
    burst: int = BURST
    interval_s: float = INTERVAL_S
    calls: RestCalls = field(
        default_factory=lambda: RestCalls(
            name="depth",
            timeout_s=CALL_TIMEOUT_S,
            backoff=BACKOFF,
            quick_attempts=10,
            slow_backoff=BACKOFF,
            refusals=Refusals(),
        )
    )
    requested: int = 0
    _in_flight: set[str] = field(default_factory=set)
    _failures: dict[str, Failures] = field(default_factory=dict)
    _not_before_s: dict[str, float] = field(default_factory=dict)
    _allowances: dict[Market, _Allowance] = field(default_factory=dict)

    async def run(self) -> None:
        """Request until cancelled."""
        await RestQueue(self.calls, self._take_due, poll_s=POLL_S, max_calls=MAX_CALLS).run()

    def _take_due(self, now_s: float) -> RestRequest[BookSnapshot] | None:
        for book in self.books.synced_books:
            symbol = book.symbol
            if not book.needs_snapshot or symbol in self._in_flight:
                continue
            if now_s < self._not_before_s.get(symbol, 0.0):
                continue
            market = market_of(symbol)
            if self.calls.refusal_by(market, now_s) is not None:
                continue
            allowance = self._allowances.setdefault(market, _Allowance(self.burst, self.interval_s))
            if allowance.take(now_s):
                return self._request(book, market)
        return None

    def _request(self, book: SyncedBook, market: Market) -> RestRequest[BookSnapshot]:
        symbol = book.symbol
        self.requested += 1
        self._in_flight.add(symbol)
        book.request_sent()
        return RestRequest(
            market,
            self._failures.setdefault(symbol, Failures()),
            fetch=lambda: self.fetch(symbol),
            is_past=lambda: False,
            on_fetched=lambda snapshot: self._fetched(book, snapshot),
            on_retry=lambda retry: self._postpone(book, retry),
            on_given_up=lambda reason: self._given_up(book, reason),
            on_cancelled=lambda: self._failed(book, 0.0),
        )

    def _fetched(self, book: SyncedBook, snapshot: BookSnapshot) -> None:
        self._in_flight.discard(book.symbol)
        failures = self._failures[book.symbol]
        if book.snapshot_received(snapshot):
            del self._failures[book.symbol]
            self._not_before_s.pop(book.symbol, None)
            log.info("book_synced", symbol=book.symbol, update_id=snapshot.last_update_id)
            return
        failures.exchange += 1
        wait_s = BACKOFF.wait_s(failures.exchange)
        self._wait(book.symbol, wait_s)
        log.info("book_snapshot_unusable", symbol=book.symbol, retry_in_s=round(wait_s, 2))

    def _postpone(self, book: SyncedBook, retry: RetryLaterError) -> None:
        self._failed(book, retry.wait_s)
        log.warning(
            "book_snapshot_postponed",
            symbol=book.symbol,
            error=str(retry),
            retry_in_s=round(retry.wait_s, 2),
        )

    def _given_up(self, book: SyncedBook, reason: str) -> None:
        self._failed(book, GIVEN_UP_S)
        log.error("book_snapshot_refused", symbol=book.symbol, error=reason, retry_in_s=GIVEN_UP_S)

    def _failed(self, book: SyncedBook, wait_s: float) -> None:
        self._in_flight.discard(book.symbol)
        self._wait(book.symbol, wait_s)
        book.request_failed()

    def _wait(self, symbol: str, wait_s: float) -> None:
        self._not_before_s[symbol] = asyncio.get_running_loop().time() + wait_s


def depth_fetcher(settings: Settings, database_url: str) -> Callable[[str], BookSnapshot]:
    """Return the call that requests a snapshot within the shared weight budget."""

    def fetch(symbol: str) -> BookSnapshot:
        with open_shared_rest(settings, market_of(symbol), database_url) as rest:
            return rest.depth(exchange_symbol_of(symbol))

    return fetch
