"""Queue REST requests and run them in threads, with one policy for timeouts, retries and refusals.

A source of work (candles to repair, missing trade ids, last trades of stopped symbols) returns the
requests that are due. The queue calls them and reports to the source how each request ended.

Failures are of three kinds. Failures of PostgreSQL, to which a call writes, do not concern the
request and are retried without limit. A market that refuses this address pauses all its requests.
Failures of the exchange are counted: after some quick attempts they are retried slowly, or given
up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from include.backoff import Backoff
from include.domain.instruments import Market
from include.errors import PermanentError, RefusedAddressError, TransientError
from include.store.postgres.pools import is_of_database
from streamer.runtime.heartbeat import Heartbeat
from streamer.runtime.refusals import Refusal, Refusals
from streamer.runtime.threads import in_thread

Value = TypeVar("Value")

CANCEL_TIMEOUT_S = 1.0
"""Time that cancelled requests have to end."""


@dataclass(slots=True)
class Failures:
    """Failures of one request.

    Attributes:
        exchange: failures of the exchange; refusals of this address do not count.
        database: consecutive failures of PostgreSQL.
    """

    exchange: int = 0
    database: int = 0


class RetryLaterError(Exception):
    """The request failed and is to be repeated.

    Attributes:
        wait_s: time to wait.
        is_overdue: from now on requests are repeated slowly; reported once.
        is_refused: the market refuses this address, so the wait concerns all its requests.
    """

    def __init__(
        self,
        error: Exception,
        wait_s: float,
        *,
        is_overdue: bool = False,
        is_refused: bool = False,
    ) -> None:
        super().__init__(str(error))
        self.wait_s = wait_s
        self.is_overdue = is_overdue
        self.is_refused = is_refused


class GiveUpError(Exception):
    """The request cannot succeed, or has failed for too long; the text is the reason."""


@dataclass(slots=True)
class RestCalls:
    """Calls REST with one policy for all requests of one kind.

    Attributes:
        name: of the threads.
        timeout_s: limit of one call; a call that hangs continues in its thread.
        backoff: waits of the quick attempts, and while PostgreSQL is away.
        quick_attempts: failures of the exchange after which requests are repeated slowly.
        slow_backoff: waits of the slow attempts; None: give up instead.
        refusals: markets that refuse this address; None: a refusal is final.
        refused_backoff: waits after a refusal; None: the slow ones.
    """

    name: str
    timeout_s: float
    backoff: Backoff
    quick_attempts: int
    slow_backoff: Backoff | None = None
    refusals: Refusals | None = field(default=None)
    refused_backoff: Backoff | None = None

    def refusal_by(self, market: Market, now_s: float) -> Refusal | None:
        """Return why no request to a market may be made now; None if requests are allowed."""
        return None if self.refusals is None else self.refusals.at(market, now_s)

    async def call(
        self,
        work: Callable[[], Value],
        failures: Failures,
        *,
        market: Market,
        is_past: Callable[[], bool] = lambda: True,
    ) -> Value:
        """Run a blocking call, and count its failure.

        Args:
            work: raises TransientError to be repeated, PermanentError if that is pointless.
            is_past: whether it is too late for slow attempts.

        Raises:
            RetryLaterError: wait, then repeat the request.
            GiveUpError: do not repeat it.
        """
        try:
            async with asyncio.timeout(self.timeout_s):
                value = await in_thread(work, name=self.name)
        except TimeoutError:
            hangs = TransientError(f"hangs for {self.timeout_s:g} s")
            raise self._after_failure(hangs, failures, is_past) from None
        except (TransientError, PermanentError) as error:
            if is_of_database(error):
                failures.database += 1
                wait_s = self.backoff.wait_s(failures.database, error)
                raise RetryLaterError(error, wait_s) from error
            if isinstance(error, RefusedAddressError) and self.refusals is not None:
                failures.database = 0
                raise self._after_refusal(error, market, self.refusals) from error
            if isinstance(error, PermanentError):
                raise GiveUpError(str(error)) from error
            raise self._after_failure(error, failures, is_past) from error
        failures.database = 0
        if self.refusals is not None:
            self.refusals.served(market)
        return value

    def _after_refusal(
        self, error: RefusedAddressError, market: Market, refusals: Refusals
    ) -> RetryLaterError:
        backoff = self.refused_backoff or self.slow_backoff or self.backoff
        wait_s = backoff.wait_s(1, error)
        now_s = asyncio.get_running_loop().time()
        is_news = refusals.note(market, str(error), now_s=now_s, wait_s=wait_s)
        return RetryLaterError(error, wait_s, is_overdue=is_news, is_refused=True)

    def _after_failure(
        self, error: TransientError, failures: Failures, is_past: Callable[[], bool]
    ) -> RetryLaterError | GiveUpError:
        failures.database = 0
        failures.exchange += 1
        if failures.exchange < self.quick_attempts:
            return RetryLaterError(error, self.backoff.wait_s(failures.exchange, error))
        if self.slow_backoff is None or is_past():
            return GiveUpError(str(error))
        wait_s = self.slow_backoff.wait_s(1, error)
        return RetryLaterError(error, wait_s, is_overdue=failures.exchange == self.quick_attempts)


@dataclass(slots=True)
class RestRequest(Generic[Value]):
    """A request that is due, and what its source does with the outcome.

    Attributes:
        fetch: blocking; raises TransientError to be repeated, PermanentError if that is pointless.
        on_fetched: receives the value.
        on_retry: puts the request back.
        on_given_up: receives the reason.
        on_cancelled: puts the request back when the queue is stopped during the call.
        is_past: whether it is too late for slow attempts.
    """

    market: Market
    failures: Failures
    fetch: Callable[[], Value]
    on_fetched: Callable[[Value], None]
    on_retry: Callable[[RetryLaterError], None]
    on_given_up: Callable[[str], None]
    on_cancelled: Callable[[], None] = lambda: None
    is_past: Callable[[], bool] = lambda: True


@dataclass(slots=True)
class RestQueue:
    """Runs the requests of a source, a few at a time.

    Attributes:
        take_due: receives the time (monotonic, s) and returns a request; None if none is due.
        poll_s: interval at which the source is polled while nothing is due.
        pause_s: pause after each request.
        max_calls: maximum concurrent calls.
        on_idle: awaited once after the last of some requests.
        heartbeat: beats while the queue advances, not while all calls hang.
    """

    calls: RestCalls
    take_due: Callable[[float], RestRequest[Any] | None]
    poll_s: float
    pause_s: float = 0.0
    max_calls: int = 1
    on_idle: Callable[[], Awaitable[None]] | None = None
    heartbeat: Heartbeat = field(default_factory=Heartbeat)

    async def run(self) -> None:
        """Run requests until cancelled."""
        loop = asyncio.get_running_loop()
        working: set[asyncio.Task[None]] = set()
        was_working = False
        try:
            while True:
                while len(working) < self.max_calls and (due := self.take_due(loop.time())):
                    working.add(asyncio.create_task(self._try(due)))
                if working:
                    was_working = True
                    done, working = await asyncio.wait(
                        working, timeout=self.poll_s, return_when=asyncio.FIRST_COMPLETED
                    )
                    for task in done:
                        task.result()
                    if not done:
                        continue  # without a beat: the heartbeat shows calls that hang
                elif was_working and self.on_idle is not None:
                    was_working = False
                    await self.on_idle()
                else:
                    await asyncio.sleep(self.poll_s)
                self.heartbeat.beat(self.calls.timeout_s)
        finally:
            for task in working:
                task.cancel()
            if working:
                await asyncio.wait(working, timeout=CANCEL_TIMEOUT_S)  # they put requests back

    async def _try(self, request: RestRequest[Any]) -> None:
        try:
            value = await self.calls.call(
                request.fetch, request.failures, market=request.market, is_past=request.is_past
            )
        except RetryLaterError as retry:
            request.on_retry(retry)
        except GiveUpError as error:
            request.on_given_up(str(error))
        except asyncio.CancelledError:
            request.on_cancelled()
            raise
        else:
            request.on_fetched(value)
        await asyncio.sleep(self.pause_s)
