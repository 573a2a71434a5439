"""Answers that are asked for again and again, as long as nothing of what they say has changed.

An answer is kept from the second request on, with the version of the rows that it was made of;
each further request has the version looked up, and never gets an answer of another one.

Called from several threads.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from threading import Lock

MOST_BYTES = 32 << 20
MOST_BYTES_OF_ONE = 2 << 20
"""Larger ones would push out too many others."""
MOST_NOTED = 10_000
"""Requests that are remembered without their answers."""


@dataclass(frozen=True, slots=True)
class Made:
    """An answer that was made: its body, and its ETag."""

    body: bytes
    etag: str


class Kept:
    """Answers by what was asked, those asked for longest ago dropped first.

    Args:
        most_bytes: of all bodies together.
    """

    def __init__(
        self, *, most_bytes: int = MOST_BYTES, most_bytes_of_one: int = MOST_BYTES_OF_ONE
    ) -> None:
        self.bytes = 0
        """Of all bodies."""
        self._most_bytes = most_bytes
        self._most_bytes_of_one = most_bytes_of_one
        self._answers: OrderedDict[Hashable, tuple[Hashable, Made]] = OrderedDict()
        self._noted: OrderedDict[Hashable, None] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._answers)

    def answer(
        self,
        key: Hashable,
        version: Callable[[], Hashable],
        make: Callable[[], Made | None],
    ) -> Made | None:
        """The answer of a request: the one that was kept, where the version is still the same.

        Args:
            version: reads the version of what it is made of; not called for a first request.
            make: makes it; None where that cannot be.
        """
        with self._lock:
            known = self._answers.get(key)
            is_first = known is None and key not in self._noted
            if is_first:
                self._note(key)
        if is_first:
            return make()
        found = version()  # before it is made: what is made is at least as new
        if known is not None and known[0] == found:
            with self._lock:
                if key in self._answers:
                    self._answers.move_to_end(key)
            return known[1]
        made = make()
        if made is not None:
            with self._lock:
                self._keep(key, found, made)
        return made

    def _note(self, key: Hashable) -> None:
        self._noted[key] = None
        if len(self._noted) > MOST_NOTED:
            self._noted.popitem(last=False)

    def _keep(self, key: Hashable, version: Hashable, made: Made) -> None:
        self._drop(self._answers.pop(key, None))
        if len(made.body) > self._most_bytes_of_one:
            return
        self._answers[key] = version, made
        self.bytes += len(made.body)
        while self.bytes > self._most_bytes:
            self._drop(self._answers.popitem(last=False)[1])

    def _drop(self, entry: tuple[Hashable, Made] | None) -> None:
        if entry is not None:
            self.bytes -= len(entry[1].body)
