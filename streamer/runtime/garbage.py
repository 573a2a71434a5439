"""Collections of garbage that do not hold up the event loop."""

from __future__ import annotations

import gc

NEW_OBJECTS = 20_000
"""Before the youngest are looked through; Python's own 700 have thousands of readers cost a third
more a message, as what waits for them is looked through again and again."""
YOUNG, MIDDLE = 50, 100
"""Collections of one age before those of the next."""


def collect_seldom() -> None:
    """What is there by now stays; of what comes, look through less.

    A collection that walks through all that a streamer begins with takes 40 to 90 ms. Objects that
    refer to one another, the only ones that are left to it, are few here.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS, YOUNG, MIDDLE)
