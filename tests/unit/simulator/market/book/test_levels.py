"""Levels of a book, and diffs computed without the unchanged levels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.market.book.levels import BestLevels, Levels
from simulator.market.instruments import MarketName, select_instruments
from simulator.market.noise import IntArray

SYMBOLS: tuple[tuple[MarketName, str], ...] = (
    ("spot", "BTCUSDT"), ("spot", "PEPEUSDT"), ("um", "BTCUSDT"), ("um", "KEEPUSDT"),
)  # fmt: skip
each_symbol = pytest.mark.parametrize(("market", "symbol"), SYMBOLS)
TURN = 17_701_200_000


def levels_of(market: MarketName, symbol: str) -> tuple[Levels, int]:
    """Return the levels and a typical price in ticks."""
    (instrument,) = select_instruments(market, [symbol], seed=1)
    return Levels(instrument, seed=1), instrument.typical_price


def differences(before: IntArray, after: IntArray) -> dict[int, int]:
    """Return price to quantity of differing levels; 0 for a removed level."""
    old = {price: quantity for price, quantity in before.tolist()}
    new = {price: quantity for price, quantity in after.tolist()}
    gone = {price: 0 for price in old if price not in new}
    return gone | {price: amount for price, amount in new.items() if old.get(price) != amount}


@each_symbol
@settings(max_examples=12)
@given(
    move=st.sampled_from([0, 1, -1, 7, -90, 400, -3_000, 60_000]),
    spreads=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    start=st.integers(0, 10_000),
    turns=st.sampled_from([0, 1, 2, 10, 31, 32, 300, 5_000]),
)
def test_changes_are_the_difference_of_two_books(
    market: MarketName, symbol: str, move: int, spreads: tuple[int, int], start: int, turns: int
) -> None:
    levels, typical = levels_of(market, symbol)
    bid = max(2, min(levels.highest - 5, typical + move))
    before = BestLevels(typical, 1_000, typical + spreads[0], 2_000)
    after = BestLevels(bid, 3_000, bid + spreads[1], 2_000)
    turn = TURN + start
    old = levels.rows(before, turn, reach=levels.highest)
    new = levels.rows(after, turn + turns, reach=levels.highest)
    found = levels.changes(before, turn, after, turn + turns)
    for rows, old_side, new_side in zip(found, old, new, strict=True):
        assert dict(rows.tolist()) == differences(old_side, new_side)
        assert len(np.unique(rows[:, 0])) == len(rows)
    assert (np.diff(found[0][:, 0]) < 0).all()
    assert (np.diff(found[1][:, 0]) > 0).all()


@each_symbol
@pytest.mark.parametrize("reach", [1, 50, 5_000])
def test_levels_within_reach_are_the_start_of_all(
    market: MarketName, symbol: str, reach: int
) -> None:
    levels, typical = levels_of(market, symbol)
    (instrument,) = select_instruments(market, [symbol], seed=1)
    touch = BestLevels(typical, 5, typical + 1, 6)
    whole = levels.rows(touch, TURN, reach=levels.highest)
    part = levels.rows(touch, TURN, reach=reach)
    lowest = (typical - reach) * instrument.tick
    highest = (typical + 1 + reach) * instrument.tick
    assert part[0].tolist() == [row for row in whole[0].tolist() if row[0] >= lowest]
    assert part[1].tolist() == [row for row in whole[1].tolist() if row[0] <= highest]
    assert part[0][0].tolist() == [typical * instrument.tick, 5]
    assert part[1][0].tolist() == [(typical + 1) * instrument.tick, 6]


def test_near_levels_change_more_often_than_far_ones() -> None:
    levels, typical = levels_of("spot", "BTCUSDT")
    touch = BestLevels(typical, 5, typical + 1, 6)
    counts = {"near": 0, "far": 0}
    for turn in range(TURN, TURN + 500):
        bids, _ = levels.changes(touch, turn, touch, turn + 1)
        near = bids[:, 0] > typical - 200 * levels.finest
        counts["near"] += int(near.sum())
        counts["far"] += int((~near).sum())
    all_bids, _ = levels.rows(touch, TURN, reach=levels.highest)
    near_levels = int((all_bids[:, 0] > typical - 200 * levels.finest).sum())
    assert counts["near"] / near_levels > 5 * counts["far"] / (len(all_bids) - near_levels)
    assert 1 < (counts["near"] + counts["far"]) / 500 < 50
