"""Answers that are asked for again and again, as long as nothing of what they say has changed.

An answer is kept from the second request on, with the version of the rows that it was made of. It
is given at once for a second; then the next request has the version looked up.

Called from several threads.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from threading import Lock

MAX_BYTES = 32 << 20
MAX_BYTES_OF_ONE = 2 << 20
"""Larger ones would push out too many others."""
MAX_NOTED = 10_000
"""Requests that are remembered without their answers."""
VERSION_TTL_S = 1.0
"""After a look at the version; caches on the way may keep such an answer for longer."""


@dataclass(frozen=True, slots=True)
class CachedResponse:
    """An answer that was made: its body, and its ETag."""

    body: bytes
    etag: str


@dataclass(frozen=True, slots=True)
class _Answer:
    """What is kept of one; when its version was looked up last, in seconds."""

    made: CachedResponse
    version: Hashable
    looked_s: float


class ResponseCache:
    """Answers by what was asked, those asked for longest ago dropped first.

    Args:
        max_bytes: of all bodies together.
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
        """Of all bodies."""
        self._max_bytes = max_bytes
        self._max_bytes_of_one = max_bytes_of_one
        self._clock = clock
        self._answers: OrderedDict[Hashable, _Answer] = OrderedDict()
        self._noted: OrderedDict[Hashable, None] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._answers)

    def at_hand(self, key: Hashable) -> CachedResponse | None:
        """The answer of a request where it is kept and its version was looked up just now."""
        with self._lock:
            known = self._answers.get(key)
            if known is None or self._clock() - known.looked_s >= VERSION_TTL_S:
                return None
            self._answers.move_to_end(key)
            return known.made

    def answer(
        self,
        key: Hashable,
        version: Callable[[], Hashable],
        make: Callable[[], CachedResponse | None],
    ) -> CachedResponse | None:
        """The answer of a request: the one that was kept, where the version is still the same.

        Args:
            version: reads the version of what it is made of; not called for a first request.
            make: makes it; None where that cannot be.
        """
        if (made := self.at_hand(key)) is not None:
            return made  # somebody looked while this one waited in line
        with self._lock:
            known = self._answers.get(key)
            is_first = known is None and key not in self._noted
            if is_first:
                self._note(key)
        if is_first:
            return make()
        looked_s = self._clock()
        found = version()  # before it is made: what is made is at least as new
        made = known.made if known is not None and known.version == found else make()
        if made is not None:
            with self._lock:
                self._keep(key, _Answer(made, found, looked_s))
        return made

    def _note(self, key: Hashable) -> None:
        self._noted[key] = None
        if len(self._noted) > MAX_NOTED:
            self._noted.popitem(last=False)

    def _keep(self, key: Hashable, answer: _Answer) -> None:
        known = self._answers.get(key)
        if known is not None and known.looked_s > answer.looked_s:
            return  # a later look was quicker
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
