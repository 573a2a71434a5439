"""Retries with exponential backoff and full jitter, so that many clients do not return together.

https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/ compares the variants;
full jitter costs the server least. Importable from every room.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from include.errors import RateLimitedError, TransientError

Value = TypeVar("Value")

_MAX_DOUBLINGS = 64  # further ones change nothing and would overflow


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait after failures in a row.

    Attributes:
        first_s: bound after the first failure; it doubles with each further one.
        max_s: maximum of the bound.
        min_s: minimum wait, so that an endless loop never spins.
        uniform: draws from a closed range.
    """

    first_s: float
    max_s: float
    min_s: float = 0.0
    uniform: Callable[[float, float], float] = random.uniform

    def wait_s(self, failures: int, error: BaseException | None = None) -> float:
        """Return the seconds to wait.

        Args:
            failures: consecutive failures; 0 after a long success.
            error: the last failure. The wait that a ``RateLimitedError`` demands is kept in full,
                and the jitter is added to it.
        """
        doublings = min(failures, _MAX_DOUBLINGS) - 1
        bound_s = max(self.min_s, min(self.max_s, self.first_s * 2.0**doublings))
        asked_s = error.retry_after_s if isinstance(error, RateLimitedError) else 0.0
        return asked_s + self.uniform(self.min_s, bound_s)


class OnRetry(Protocol):
    """Receives the fields of a log event for each wait."""

    def __call__(self, *, attempt: int, retry_in_s: float, error: str) -> object:
        """``attempt`` failed with ``error``; the next one follows in ``retry_in_s`` seconds."""


class RetryLoop:
    """Runs a step again and again, and waits longer with each failure in a row.

    Args:
        retry_on: errors after which the step is run again; others end the loop.
        on_failure: called first after a failure, to clean up.
        on_retry: called before each wait.
        timeout_text: error of a ``TimeoutError`` without text.
    """

    def __init__(
        self,
        backoff: Backoff,
        *,
        retry_on: tuple[type[Exception], ...] = (TransientError, TimeoutError),
        on_retry: OnRetry,
        on_failure: Callable[[], Awaitable[None]] | None = None,
        timeout_text: str = "TimeoutError",
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._backoff = backoff
        self._retry_on = retry_on
        self._on_retry = on_retry
        self._on_failure = on_failure
        self._timeout_text = timeout_text
        self._sleep = sleep
        self._failures = 0

    def succeeded(self) -> None:
        """Forget failures before an endless step has ended."""
        self._failures = 0

    async def run(self, step: Callable[[], Awaitable[bool | None]]) -> None:
        """Run the step until it returns true, or until cancelled."""
        while True:
            try:
                if await step():
                    return
                self._failures = 0
            except self._retry_on as error:
                self._failures += 1
                wait_s = self._backoff.wait_s(self._failures, error)
                if self._on_failure is not None:
                    await self._on_failure()
                self._on_retry(
                    attempt=self._failures,
                    retry_in_s=round(wait_s, 2),
                    error=str(error) or self._timeout_text,
                )
                await self._sleep(wait_s)


@dataclass(slots=True)
class _Attempts:
    """Counts failures of a call, and decides whether it may be tried again."""

    backoff: Backoff
    attempts: int
    on_retry: OnRetry
    clock: Callable[[], float] = time.monotonic
    deadline_s: float = float("inf")
    failures: int = 0

    def wait_s(self, error: Exception) -> float:
        """Return the seconds to wait; raise the error if no attempt is left."""
        self.failures += 1
        wait_s = self.backoff.wait_s(self.failures, error)
        if self.failures >= self.attempts or self.clock() + wait_s > self.deadline_s:
            raise error
        self.on_retry(attempt=self.failures, retry_in_s=round(wait_s, 2), error=str(error))
        return wait_s


def retried(
    call: Callable[[], Value],
    *,
    backoff: Backoff,
    attempts: int,
    max_elapsed_s: float = float("inf"),
    retry_on: tuple[type[Exception], ...] = (TransientError,),
    unless: tuple[type[Exception], ...] = (),
    on_retry: OnRetry,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Value:
    """Call until it succeeds, while failures are transient and attempts and time remain.

    Args:
        attempts: maximum number of calls.
        max_elapsed_s: no attempt starts later than this after the first one.
        retry_on: errors after which it is called again; others are raised immediately.
        unless: exceptions to ``retry_on``, which the caller handles.
        on_retry: called before each wait.
        sleep, clock: in seconds.

    Raises:
        Exception: the last attempt's error.
    """
    made = _Attempts(backoff, attempts, on_retry, clock, clock() + max_elapsed_s)
    while True:
        try:
            return call()
        except unless:
            raise
        except retry_on as error:
            wait_s = made.wait_s(error)
        sleep(wait_s)


async def retried_async(
    call: Callable[[], Awaitable[Value]],
    *,
    backoff: Backoff,
    attempts: int,
    retry_on: tuple[type[Exception], ...] = (TransientError,),
    on_retry: OnRetry,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> Value:
    """Await a call until it succeeds; see ``retried``."""
    made = _Attempts(backoff, attempts, on_retry)
    while True:
        try:
            return await call()
        except retry_on as error:
            wait_s = made.wait_s(error)
        await sleep(wait_s)
