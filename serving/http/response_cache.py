"""Caches responses as long as the rows behind them do not change.

A response is cached on its second request, with the version of its rows. It is served from memory
for a second; then the next request checks the version.

Thread-safe.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from threading import Lock

MAX_BYTES = 32 << 20
MAX_BYTES_OF_ONE = 2 << 20
"""Larger responses would evict too many others."""
MAX_NOTED = 10_000
"""Requests that are remembered without their responses."""
VERSION_TTL_S = 1.0
"""Time for which a checked version counts as current; HTTP caches may store the response longer."""


@dataclass(frozen=True, slots=True)
class CachedResponse:
    """The body of a response and its ETag."""

    body: bytes
    etag: str


@dataclass(frozen=True, slots=True)
class _Answer:
    """A cached response; ``checked_s`` is when its version was last checked."""

    made: CachedResponse
    version: Hashable
    checked_s: float


class ResponseCache:
    """Responses by request; the least recently requested are evicted first.

    Args:
        max_bytes: of all bodies.
        clock: in seconds.
    """

    def __init__(
        self,
        *,
        max_bytes: int = MAX_BYTES,
        max_bytes_of_one: int = MAX_BYTES_OF_ONE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.bytes = 0
        """Total of all bodies."""
        self._max_bytes = max_bytes
        self._max_bytes_of_one = max_bytes_of_one
        self._clock = clock
        self._answers: OrderedDict[Hashable, _Answer] = OrderedDict()
        self._noted: OrderedDict[Hashable, None] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._answers)

    def at_hand(self, key: Hashable) -> CachedResponse | None:
        """The cached response of a request, if its version was checked just now."""
        with self._lock:
            known = self._answers.get(key)
            if known is None or self._clock() - known.checked_s >= VERSION_TTL_S:
                return None
            self._answers.move_to_end(key)
            return known.made

    def answer(
        self,
        key: Hashable,
        version: Callable[[], Hashable],
        make: Callable[[], CachedResponse | None],
    ) -> CachedResponse | None:
        """Return the cached response of a request if its version is unchanged; else build it.

        Args:
            version: reads the version of the rows; not called for a first request.
            make: builds the response; None if that is impossible.
        """
        if (made := self.at_hand(key)) is not None:
            return made  # another request checked it while this one waited
        with self._lock:
            known = self._answers.get(key)
            is_first = known is None and key not in self._noted
            if is_first:
                self._note(key)
        if is_first:
            return make()
        checked_s = self._clock()
        found = version()  # read first: the response is at least as new
        made = known.made if known is not None and known.version == found else make()
        if made is not None:
            with self._lock:
                self._keep(key, _Answer(made, found, checked_s))
        return made

    def _note(self, key: Hashable) -> None:
        self._noted[key] = None
        if len(self._noted) > MAX_NOTED:
            self._noted.popitem(last=False)

    def _keep(self, key: Hashable, answer: _Answer) -> None:
        known = self._answers.get(key)
        if known is not None and known.checked_s > answer.checked_s:
            return  # a later check finished first
        self._drop(self._answers.pop(key, None))
        size = len(answer.made.body)
        if size > self._max_bytes_of_one:
            return
        self._answers[key] = answer
        self.bytes += size
        while self.bytes > self._max_bytes:
            self._drop(self._answers.popitem(last=False)[1])

    def _drop(self, answer: _Answer | None) -> None:
        if answer is not None:
            self.bytes -= len(answer.made.body)
