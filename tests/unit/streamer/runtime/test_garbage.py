"""Garbage that refers to itself is still collected, only later."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from streamer.runtime.garbage import NEW_OBJECTS, collect_seldom


class Node:
    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


def test_existing_objects_are_frozen_and_new_ones_are_collected() -> None:
    collect_seldom()
    assert gc.get_freeze_count() > 0
    lost = weakref.ref(Node())
    assert lost() is not None
    kept = [[number] for number in range(2 * NEW_OBJECTS)]
    assert lost() is None
    assert len(kept) == 2 * NEW_OBJECTS
