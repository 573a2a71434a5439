"""Waiting between tries: full jitter below a doubling bound, so that many do not return at once.

https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/ compares the kinds; the
one called full jitter costs the server least. Importable from every room.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from include.errors import RateLimitedError, TransientError

Value = TypeVar("Value")

_MAX_DOUBLINGS = 64
"""Further ones change nothing and would end in an overflow."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait after failures in a row.

    Attributes:
        first_s: bound after the first failure; it doubles with each further one.
        max_s: the bound never exceeds this.
        min_s: no wait is shorter, so that a loop without an end never spins.
        uniform: draws from a closed range.
    """

    first_s: float
    max_s: float
    min_s: float = 0.0
    uniform: Callable[[float, float], float] = random.uniform

    def wait_s(self, failures: int, error: BaseException | None = None) -> float:
        """Seconds to wait.

        Args:
            failures: in a row; 0 for none, where something ended that had gone well for long.
            error: what failed last. What a ``RateLimitedError`` asks for is waited out in
                full, and the jitter comes on top.
        """
        doublings = min(failures, _MAX_DOUBLINGS) - 1
        bound_s = max(self.min_s, min(self.max_s, self.first_s * 2.0**doublings))
        asked_s = error.retry_after_s if isinstance(error, RateLimitedError) else 0.0
        return asked_s + self.uniform(self.min_s, bound_s)


class OnRetry(Protocol):
    """Is told of a wait by the fields of a log event."""

    def __call__(self, *, attempt: int, retry_in_s: float, error: str) -> object:
        """``attempt`` has failed with ``error``; the next one comes in ``retry_in_s`` seconds."""


def retried(
    call: Callable[[], Value],
    *,
    backoff: Backoff,
    attempts: int,
    max_elapsed_s: float = float("inf"),
    unless: tuple[type[TransientError], ...] = (),
    on_retry: OnRetry,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Value:
    """Call until it succeeds, while its failure is transient and tries and time are left.

    Args:
        attempts: most tries.
        max_elapsed_s: no try begins later than this after the first one.
        unless: transient errors that are the caller's to wait out; raised at once.
        on_retry: told of each wait before it.
        sleep, clock: in seconds.

    Raises:
        TransientError: of the last try.
    """
    began_s = clock()
    failures = 0
    while True:
        try:
            return call()
        except unless:
            raise
        except TransientError as error:
            failures += 1
            wait_s = backoff.wait_s(failures, error)
            if failures >= attempts or clock() - began_s + wait_s > max_elapsed_s:
                raise
            on_retry(attempt=failures, retry_in_s=round(wait_s, 2), error=str(error))
            sleep(wait_s)
