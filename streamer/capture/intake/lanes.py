"""Queues of captured rows waiting for PostgreSQL, with a common memory bound."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice

from include.store.trades.captured import RawTable

LEAVE_ROWS = 1_000
"""Rows evicted together when the bound is reached."""


@dataclass(slots=True)
class Lane:
    """Rows of one table that wait, as COPY lines.

    Attributes:
        can_be_requested: whether the exchange serves these rows again by id.
        in_flight: rows being written, which are still only in memory.
    """

    table: RawTable
    can_be_requested: bool
    rows: deque[str] = field(default_factory=deque)
    in_flight: list[str] = field(default_factory=list)


class Lanes:
    """All queues.

    Args:
        lanes: the queues.
        max_rows: maximum rows in all queues together.
        on_leave: receives a lane and its oldest rows when they are evicted.
    """

    def __init__(
        self,
        lanes: list[Lane],
        *,
        max_rows: int,
        on_leave: Callable[[Lane, list[str]], None],
    ) -> None:
        self.lanes = lanes
        self.waiting = 0
        """Rows in memory."""
        self.max_rows = max_rows
        self._on_leave = on_leave

    def add(self, lane: Lane, row: str) -> None:
        """Add a row."""
        lane.rows.append(row)
        self.waiting += 1
        if self.waiting > self.max_rows:
            self._make_room()

    def take(self, lane: Lane, most: int) -> list[str]:
        """Remove and return the oldest rows of a lane."""
        rows = list(islice(lane.rows, most))
        if len(rows) == len(lane.rows):
            lane.rows.clear()
        else:
            for _ in rows:
                lane.rows.popleft()
        self.waiting -= len(rows)
        return rows

    @contextmanager
    def removed(self, lane: Lane, most: int) -> Iterator[list[str]]:
        """Remove and yield the oldest rows of a lane; they return to it if the block fails.

        They are removed first so that rows evicted from a full queue are not used twice.
        """
        rows = self.take(lane, most)
        is_done = False
        try:
            yield rows
            is_done = True
        finally:
            if not is_done:
                self.put_back(lane, rows)

    def put_back(self, lane: Lane, rows: list[str]) -> None:
        """Return rows that could not be written."""
        lane.rows.extendleft(reversed(rows))
        self.waiting += len(rows)
        while self.waiting > self.max_rows:
            self._make_room()

    def _make_room(self) -> None:
        """Evict rows that can be refetched; other rows only if there are none."""
        lane = max(
            self.lanes, key=lambda one: (one.can_be_requested and bool(one.rows), len(one.rows))
        )
        self._on_leave(lane, self.take(lane, LEAVE_ROWS))
