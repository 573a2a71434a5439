"""Queue minutes for repair by REST, and retry until they are repaired or given up.

Minutes are stored as ranges per symbol, so that a disconnect of hours for 1,500 symbols takes
little memory.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import structlog

from include.backoff import Backoff
from include.domain.instruments import Market, market_of
from include.domain.ranges import united, without
from include.domain.timeframes import MINUTE_US, SECOND_US, from_us
from include.jobs.klines.pieces import LoadCounts
from streamer.runtime.heartbeat import Heartbeat
from streamer.runtime.refusals import Refusals
from streamer.runtime.rest_queue import (
    Failures,
    RestCalls,
    RestQueue,
    RestRequest,
    RetryLaterError,
)
from streamer.runtime.threads import in_thread

log = structlog.get_logger(__name__)

REST_DELAY_US = 30 * SECOND_US
"""REST may miss trades of a minute that closed more recently than this."""

MAX_MINUTES_PER_CALL = 1_000
MAX_CALLS = 4
"""Maximum concurrent calls; more would slow the event loop down."""
POLL_S = 0.5
BACKOFF = Backoff(first_s=2.0, max_s=60.0, min_s=0.1)
REFUSED_BACKOFF = Backoff(first_s=660.0, max_s=660.0, min_s=540.0)
"""Waits while a market refuses this address (403, 451, or a proxy's 407)."""
CALL_TIMEOUT_S = 900.0
"""Timeout for all pages of a long range, which wait for request weight."""
RELEASE_TIMEOUT_S = 30.0
MAX_RANGES = 100
"""Maximum ranges of one symbol; beyond this the nearest two are joined, with the minutes between.
"""
MAX_ATTEMPTS = 20
"""Failures of the exchange, with waits of at most fifteen minutes in total, after which the DAG
``repair_gaps`` repairs the gap. Failures of PostgreSQL do not count."""


def _repair_calls() -> RestCalls:
    return RestCalls(
        name="repair",
        timeout_s=CALL_TIMEOUT_S,
        backoff=BACKOFF,
        quick_attempts=MAX_ATTEMPTS,
        refusals=Refusals(),
        refused_backoff=REFUSED_BACKOFF,
    )


@dataclass(slots=True)
class RepairRequest:
    """A half-open range of minutes of one symbol."""

    symbol: str
    start_us: int
    end_us: int
    cause: str
    failures: Failures = field(default_factory=Failures)
    not_before_s: float = 0.0


@dataclass(slots=True)
class RepairQueue:
    """Repairs minutes that the stream could not prove.

    Args:
        repair: fetches and stores a range of a symbol (blocking; runs in a thread).
        exchange_us: exchange time.
        release: closes connections that repairs keep open (blocking; runs in a thread); called
            when the queue is empty.
        patience_us: how much longer than usual to wait before a symbol's minutes are fetched.
        on_given_up: called with a range that could not be repaired, and the reason.
        on_repaired: called with a repaired range and the result.

    Attributes:
        failures: calls that failed and are retried.
        requested: ranges requested, by cause, including those joined with others.
    """

    repair: Callable[[str, int, int], LoadCounts]
    exchange_us: Callable[[], int]
    on_given_up: Callable[[RepairRequest, str], None]
    on_repaired: Callable[[RepairRequest, LoadCounts], None] = lambda _request, _counts: None
    patience_us: Callable[[str], int] = lambda _symbol: 0
    release: Callable[[], None] = lambda: None
    repaired_minutes: int = 0
    given_up_minutes: int = 0
    failures: int = 0
    requested: Counter[str] = field(default_factory=Counter)
    heartbeat: Heartbeat = field(default_factory=Heartbeat)
    calls: RestCalls = field(default_factory=_repair_calls)
    _requests: dict[str, list[RepairRequest]] = field(default_factory=dict)

    def request(self, symbol: str, start_us: int, end_us: int, cause: str) -> None:
        """Queue a range; adjacent ranges of one symbol are joined, except with failed ones."""
        self.requested[cause] += 1
        requests = self._requests.get(symbol, [])
        known = united((one.start_us, one.end_us) for one in requests)
        for start, end in without([(start_us, end_us)], known):
            self._join(symbol, start, end, cause)

    def _join(self, symbol: str, start_us: int, end_us: int, cause: str) -> None:
        """Queue a range that no request has yet."""
        for request in self._requests.setdefault(symbol, []):
            is_adjacent = request.start_us <= end_us and start_us <= request.end_us
            if is_adjacent and request.failures == Failures():
                request.start_us = min(request.start_us, start_us)
                request.end_us = max(request.end_us, end_us)
                return
        self._insert(RepairRequest(symbol, start_us, end_us, cause))

    def _insert(self, request: RepairRequest) -> None:
        """Insert a range in order, within ``MAX_RANGES``."""
        requests = self._requests.setdefault(request.symbol, [])
        requests.append(request)
        requests.sort(key=lambda one: one.start_us)
        if len(requests) <= MAX_RANGES:
            return
        nearest = min(
            range(len(requests) - 1),
            key=lambda index: requests[index + 1].start_us - requests[index].end_us,
        )
        first, second = requests[nearest], requests.pop(nearest + 1)
        first.end_us = max(first.end_us, second.end_us)
        first.failures = Failures(
            min(first.failures.exchange, second.failures.exchange),
            min(first.failures.database, second.failures.database),
        )
        first.not_before_s = max(first.not_before_s, second.not_before_s)

    @property
    def waiting_minutes(self) -> int:
        """Number of minutes requested and not repaired yet."""
        return sum(
            (request.end_us - request.start_us) // MINUTE_US
            for requests in self._requests.values()
            for request in requests
        )

    async def run(self) -> None:
        """Repair until cancelled."""
        await RestQueue(
            self.calls,
            self._request_due,
            poll_s=POLL_S,
            max_calls=MAX_CALLS,
            on_idle=self._release_connections,
            heartbeat=self.heartbeat,
        ).run()

    async def _release_connections(self) -> None:
        with contextlib.suppress(TimeoutError):  # closes them one by one
            async with asyncio.timeout(RELEASE_TIMEOUT_S):
                await in_thread(self.release, name="release")

    def _request_due(self, now_s: float) -> RestRequest[LoadCounts] | None:
        due = self._take_due(now_s)
        if due is None:
            return None
        return RestRequest(
            market_of(due.symbol),
            due.failures,
            fetch=lambda: self.repair(due.symbol, due.start_us, due.end_us),
            on_fetched=partial(self._repaired, due),
            on_retry=partial(self._postpone, due),
            on_given_up=partial(self._give_up, due),
        )

    def _take_due(self, now_s: float) -> RepairRequest | None:
        """Return the next range, or part of one, whose minutes are complete at REST."""
        exchange_us = self.exchange_us()
        refusing = {market for market in Market if self.calls.refusal_by(market, now_s)}
        for symbol, requests in self._requests.items():
            if refusing and market_of(symbol) in refusing:
                continue
            complete_us = exchange_us - REST_DELAY_US - self.patience_us(symbol)
            for index, request in enumerate(requests):
                if request.not_before_s > now_s:
                    continue
                end_us = min(
                    request.end_us,
                    request.start_us + MAX_MINUTES_PER_CALL * MINUTE_US,
                    complete_us - complete_us % MINUTE_US,
                )
                if end_us <= request.start_us:
                    continue
                part = replace(request, end_us=end_us, failures=replace(request.failures))
                if end_us < request.end_us:
                    request.start_us = end_us
                else:
                    del requests[index]
                    if not requests:
                        del self._requests[symbol]
                return part
        return None

    def _repaired(self, request: RepairRequest, counts: LoadCounts) -> None:
        minutes = counts.offered + counts.outage_minutes
        self.repaired_minutes += minutes
        self.on_repaired(request, counts)
        log.info(
            "minutes_repaired",
            symbol=request.symbol,
            start=from_us(request.start_us).isoformat(),
            requested=(request.end_us - request.start_us) // MINUTE_US,
            minutes=counts.offered,
            outage_minutes=counts.outage_minutes,
            cause=request.cause,
        )

    def _give_up(self, request: RepairRequest, reason: str) -> None:
        """Report the range as given up, for the gap ledger."""
        self.given_up_minutes += (request.end_us - request.start_us) // MINUTE_US
        self.on_given_up(request, reason)

    def _postpone(self, request: RepairRequest, retry: RetryLaterError) -> None:
        self.failures += 1
        now_s = asyncio.get_running_loop().time()
        if retry.is_refused:
            refusal = self.calls.refusal_by(market_of(request.symbol), now_s)
            if refusal is not None and refusal.is_lasting:
                self._give_up(request, refusal.reason)
                return
        request.not_before_s = now_s + retry.wait_s
        self._insert(request)
        if retry.is_refused and not retry.is_overdue:
            return  # reported once for each market
        log.warning(
            "repair_postponed",
            symbol=request.symbol,
            error=str(retry),
            attempt=request.failures.database or request.failures.exchange,
            retry_in_s=round(retry.wait_s, 1),
        )
