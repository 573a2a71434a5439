"""Times at which a generated market sent each trade, in memory that two processes share.

A candle does not name its trades, but its trade count identifies its last one: symbol, minute and
count give the time of sending. The file holds two minutes: the current one and the one before.
"""

from __future__ import annotations

import mmap
from pathlib import Path

from benchmarks.load.market import MINUTE_US

MAX_TRADES = 1 << 19
"""Maximum number of trades of one symbol in one minute."""
BYTES = 8


class SentTimes:
    """File of times (µs); only written parts use space.

    Args:
        path: path of the file. Its creator passes ``symbols``, and readers pass the same list.
    """

    def __init__(self, path: Path, symbols: int) -> None:
        size = 2 * symbols * MAX_TRADES * BYTES
        with path.open("a+b") as file:
            file.truncate(size)
            self._bytes = mmap.mmap(file.fileno(), size)
        self._moments = memoryview(self._bytes).cast("q")
        self._symbols = symbols

    def note(self, place: int, minute_us: int, count: int, sent_us: int) -> None:
        """Record that a symbol's minute has this many trades."""
        if count < MAX_TRADES:
            self._moments[self._first(place, minute_us) + count] = sent_us

    def of(self, place: int, minute_us: int, after: int, upto: int) -> list[int]:
        """Return when the trades were sent that raised a minute's trade count from one value to
        another."""
        first = self._first(place, minute_us)
        upto = min(upto, MAX_TRADES - 1)
        # anything older than its minute was written two minutes ago
        return [
            one for one in self._moments[first + after + 1 : first + upto + 1] if one >= minute_us
        ]

    def _first(self, place: int, minute_us: int) -> int:
        return (minute_us // MINUTE_US % 2 * self._symbols + place) * MAX_TRADES
