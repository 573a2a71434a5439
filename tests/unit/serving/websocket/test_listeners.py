"""What waits for one reader."""

from __future__ import annotations

import pytest

from serving.websocket.listeners import Listener


class Nowhere:
    def takes(self) -> bool:
        return False

    def push(self, frames: bytes) -> None:
        pytest.fail("it takes nothing")

    def when_it_takes(self, call: object) -> None:
        pass


def test_what_was_missed_of_a_symbol_is_one_range() -> None:
    one = Listener(Nowhere(), lambda: None, lambda: None, patience_s=1.0)
    one.miss("A", 120, 180)
    one.miss("B", 60, 120)
    one.miss("A", 0, 60)
    one.miss("A", 60, 120)
    assert one.missed == {"A": (0, 180), "B": (60, 120)}
