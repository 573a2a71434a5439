"""Items are made one ahead, in order, and errors are raised in their place."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from include.binance.files.read_ahead import read_ahead


def test_items_are_in_order_and_the_next_is_read_ahead() -> None:
    made = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        made.set()
        yield 2

    ahead = read_ahead(items())
    assert next(ahead) == 1
    assert made.wait(5)
    assert list(ahead) == [2]


def test_error_is_raised_after_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("damaged")

    ahead = read_ahead(items())
    assert next(ahead) == 1
    with pytest.raises(ValueError, match="damaged"):
        next(ahead)


def test_closing_closes_the_source_and_ends_the_thread() -> None:
    closed = threading.Event()

    def items() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    ahead = read_ahead(items())
    next(ahead)
    ahead.close()
    assert closed.is_set()
    assert not [one for one in threading.enumerate() if one.name.startswith("read-ahead")]
