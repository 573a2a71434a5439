"""Minutes that need the exchange's word by REST, until they have it.

Held as ranges for each symbol, so that hours of a cut for 1,500 symbols take little memory.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import structlog

from include.backoff import Backoff
from include.domain.timeframes import MINUTE_US, SECOND_US, from_us
from include.errors import PermanentError, TransientError
from include.jobs.klines.pieces import LoadCounts
from include.store.postgres.pools import is_of_database
from streamer.runtime.heartbeat import Heartbeat
from streamer.runtime.threads import in_thread

log = structlog.get_logger(__name__)

REST_SETTLES_US = 30 * SECOND_US
"""REST may still miss trades of a minute that closed less than this long ago."""

MAX_MINUTES_A_CALL = 1_000
MAX_AT_ONCE = 4
"""Calls that wait for the exchange or PostgreSQL; more of them would hold up the event loop."""
POLL_S = 0.5
BACKOFF = Backoff(first_s=2.0, max_s=60.0, min_s=0.1)
MAX_CALL_S = 900.0
"""Pages of a long range, each waiting for weight: longer than that, a call hangs."""
MAX_RELEASE_S = 30.0
MAX_RANGES = 100
"""Of one symbol; beyond it, those nearest to each other become one, with the minutes between."""
MAX_ATTEMPTS = 20
"""Of asking the exchange: waits below bounds of fifteen minutes together, half of that on average.
After that the hole is in ops.gaps for the DAGs. While PostgreSQL is away, none is used up."""


@dataclass(slots=True)
class Request:
    """A half-open range of minutes of one symbol."""

    symbol: str
    start_us: int
    end_us: int
    cause: str
    attempts: int = 0
    database_failures: int = 0
    """In succession; they say nothing against the range, and are no attempts."""
    not_before_s: float = 0.0


@dataclass(slots=True)
class RepairQueue:
    """Asks REST for the minutes that the stream could not prove.

    Args:
        repair: fetches and stores a range (blocking; runs in a thread): symbol, start, end;
            returns what it found.
        exchange_us: the exchange's clock.
        release: closes what repairs keep open between them (blocking; runs in a thread); called
            when nothing is left to do.
        patience_us: how much longer than usual minutes of this symbol are left alone.
        on_given_up: told of a range that could not be repaired, with the reason.
        on_repaired: told of a range about which REST has spoken, and what it found.
    """

    repair: Callable[[str, int, int], LoadCounts]
    exchange_us: Callable[[], int]
    on_given_up: Callable[[Request, str], None]
    on_repaired: Callable[[Request, LoadCounts], None] = lambda _request, _counts: None
    patience_us: Callable[[str], int] = lambda _symbol: 0
    release: Callable[[], None] = lambda: None
    repaired_minutes: int = 0
    given_up_minutes: int = 0
    failures: int = 0
    """Calls that failed and were, or will be, tried again."""
    asked: Counter[str] = field(default_factory=Counter)
    """Ranges asked for, by cause; those joined with another count as well."""
    pulse: Heartbeat = field(default_factory=Heartbeat)
    _requests: dict[str, list[Request]] = field(default_factory=dict)

    def ask(self, symbol: str, start_us: int, end_us: int, cause: str) -> None:
        """Note a range; neighbours of one symbol are joined."""
        self.asked[cause] += 1
        requests = self._requests.setdefault(symbol, [])
        for request in requests:
            if request.start_us <= end_us and start_us <= request.end_us:
                request.start_us = min(request.start_us, start_us)
                request.end_us = max(request.end_us, end_us)
                return
        self._put(Request(symbol, start_us, end_us, cause))

    def _put(self, request: Request) -> None:
        """Keep a range; those of a symbol are ascending, and their number is bounded."""
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
        first.attempts = min(first.attempts, second.attempts)
        first.database_failures = min(first.database_failures, second.database_failures)
        first.not_before_s = max(first.not_before_s, second.not_before_s)

    @property
    def waiting_minutes(self) -> int:
        """Minutes asked for and not yet repaired."""
        return sum(
            (request.end_us - request.start_us) // MINUTE_US
            for requests in self._requests.values()
            for request in requests
        )

    async def run(self) -> None:
        """Repair until cancelled."""
        loop = asyncio.get_running_loop()
        working: set[asyncio.Task[None]] = set()
        is_open = False
        try:
            while True:
                while len(working) < MAX_AT_ONCE and (due := self._take_due(loop.time())):
                    working.add(asyncio.create_task(self._try(due, loop)))
                if working:
                    is_open = True
                    done, working = await asyncio.wait(
                        working, timeout=POLL_S, return_when=asyncio.FIRST_COMPLETED
                    )
                    for task in done:
                        task.result()
                    if not done:
                        continue  # the pulse tells of calls that hang
                elif is_open:
                    is_open = False
                    with contextlib.suppress(TimeoutError):  # they are closed one after the other
                        async with asyncio.timeout(MAX_RELEASE_S):
                            await in_thread(self.release, name="release")
                else:
                    await asyncio.sleep(POLL_S)
                self.pulse.beat(MAX_CALL_S)
        finally:
            for task in working:
                task.cancel()

    def _take_due(self, now_s: float) -> Request | None:
        """The next range, or the part of one, whose minutes REST has settled."""
        exchange_us = self.exchange_us()
        for symbol, requests in self._requests.items():
            ripe_us = exchange_us - REST_SETTLES_US - self.patience_us(symbol)
            for index, request in enumerate(requests):
                if request.not_before_s > now_s:
                    continue
                end_us = min(
                    request.end_us,
                    request.start_us + MAX_MINUTES_A_CALL * MINUTE_US,
                    ripe_us - ripe_us % MINUTE_US,
                )
                if end_us <= request.start_us:
                    continue
                part = replace(request, end_us=end_us)
                if end_us < request.end_us:
                    request.start_us = end_us
                else:
                    del requests[index]
                    if not requests:
                        del self._requests[symbol]
                return part
        return None

    async def _try(self, request: Request, loop: asyncio.AbstractEventLoop) -> None:
        minutes = (request.end_us - request.start_us) // MINUTE_US
        try:
            async with asyncio.timeout(MAX_CALL_S):
                counts = await in_thread(
                    lambda: self.repair(request.symbol, request.start_us, request.end_us),
                    name="repair",
                )
        except TimeoutError:
            # What hangs is left to its thread; its connections are not used again.
            self._again_later(request, TransientError(f"hangs for {MAX_CALL_S:g} s"), loop.time())
        except (TransientError, PermanentError) as error:
            if isinstance(error, TransientError) or is_of_database(error):
                self._again_later(request, error, loop.time())
            else:
                self._give_up(request, str(error))
        else:
            self.repaired_minutes += minutes
            self.on_repaired(request, counts)
            log.info(
                "minutes_repaired",
                symbol=request.symbol,
                start=from_us(request.start_us).isoformat(),
                minutes=minutes,
                cause=request.cause,
            )

    def _give_up(self, request: Request, reason: str) -> None:
        """Leave the range to the gap ledger."""
        self.given_up_minutes += (request.end_us - request.start_us) // MINUTE_US
        self.on_given_up(request, reason)

    def _again_later(self, request: Request, error: Exception, now_s: float) -> None:
        self.failures += 1
        if is_of_database(error):
            request.database_failures += 1
        else:
            request.database_failures = 0
            request.attempts += 1
            if request.attempts >= MAX_ATTEMPTS:
                self._give_up(request, str(error))
                return
        wait_s = BACKOFF.wait_s(request.database_failures or request.attempts, error)
        request.not_before_s = now_s + wait_s
        self._put(request)
        log.warning(
            "repair_postponed",
            symbol=request.symbol,
            error=str(error),
            attempt=request.database_failures or request.attempts,
            retry_in_s=round(wait_s, 1),
        )
