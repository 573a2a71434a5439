"""Garbage collection that does not block the event loop."""

from __future__ import annotations

import gc

NEW_OBJECTS = 20_000
"""Allocations before the youngest generation is collected. With Python's default of 700, thousands
of readers cost a third more per message, because waiting messages are scanned repeatedly."""
YOUNG, MIDDLE = 50, 100
"""Collections of one generation before one of the next."""


def collect_seldom() -> None:
    """Exclude existing objects from collection, and collect new ones less often.

    Collecting everything that a streamer has after its start takes 40 to 90 ms. Only reference
    cycles need the collector, and they are few here.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS, YOUNG, MIDDLE)
