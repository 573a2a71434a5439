"""Rows in memory: in order, bounded; those that can be requested again leave first."""

from __future__ import annotations

from typing import Any

import pytest

from include.store.trades.captured import AGG_TRADES, BOOK_TICKERS
from streamer.capture.intake.lanes import LEAVE_ROWS, Lane, Lanes


def new_lanes(max_rows: int) -> tuple[Lanes, Lane, Lane, list[tuple[Lane, list[Any]]]]:
    trades, quotes = (
        Lane(AGG_TRADES, can_be_requested=True),
        Lane(BOOK_TICKERS, can_be_requested=False),
    )
    left: list[tuple[Lane, list[Any]]] = []
    lanes = Lanes(
        [trades, quotes], max_rows=max_rows, on_leave=lambda lane, rows: left.append((lane, rows))
    )
    return lanes, trades, quotes, left


def test_rows_are_taken_in_order_of_arrival() -> None:
    lanes, trades, _, _ = new_lanes(100)
    for n in range(5):
        lanes.add(trades, (n,))
    rows = lanes.take(trades, 3)
    assert rows == [(0,), (1,), (2,)]
    lanes.put_back(trades, rows)
    assert lanes.waiting == 5
    assert lanes.take(trades, 9) == [(n,) for n in range(5)]
    assert lanes.waiting == 0


def test_oldest_rows_that_rest_serves_are_dropped_first() -> None:
    lanes, trades, quotes, left = new_lanes(3_000)
    for n in range(1_500):
        lanes.add(quotes, (n,))
        lanes.add(trades, (n,))
    assert left == []
    lanes.add(quotes, (1_500,))
    assert left == [(trades, [(n,) for n in range(LEAVE_ROWS)])]
    assert lanes.waiting == 3_001 - LEAVE_ROWS


def test_returned_rows_count_towards_the_bound() -> None:
    lanes, trades, quotes, left = new_lanes(2_000)
    for n in range(2_000):
        lanes.add(quotes, (n,))
    rows = lanes.take(quotes, 1_500)
    for n in range(1_500):
        lanes.add(quotes, (2_000 + n,))
    lanes.put_back(quotes, rows)
    assert lanes.waiting <= 2_000
    assert all(lane is quotes for lane, _ in left)
    assert sum(len(some) for _, some in left) + lanes.waiting == 3_500
    assert trades.rows == type(trades.rows)()


def test_rows_return_in_order_after_a_failed_write() -> None:
    trades = Lane(AGG_TRADES, can_be_requested=True)
    lanes = Lanes([trades], max_rows=100, on_leave=lambda _lane, _rows: None)
    for number in range(4):
        lanes.add(trades, (number,))

    def fail() -> None:
        with lanes.removed(trades, 2) as rows:
            assert (rows, list(trades.rows)) == ([(0,), (1,)], [(2,), (3,)])
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert (list(trades.rows), lanes.waiting) == ([(0,), (1,), (2,), (3,)], 4)
    with lanes.removed(trades, 2):
        lanes.add(trades, (4,))
    assert (list(trades.rows), lanes.waiting) == ([(2,), (3,), (4,)], 3)
