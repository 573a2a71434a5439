"""A minute is whole where its trades prove it, over blocks and over the ends of files."""

from __future__ import annotations

import polars as pl
import pytest

from include.domain.columns.trades import AggregatedMinutes, TradeAggregator, TradeRows
from include.domain.timeframes import MINUTE_US

T0 = 1_735_725_600_000_000 // MINUTE_US * MINUTE_US


def rows(*trades: tuple[int, int], void: tuple[int, ...] = (), bad: tuple[int, ...] = ()):
    """Trades of (id, minute), some of them void or bad."""
    ids = [number for number, _ in trades]
    frame = pl.DataFrame(
        {
            "id": ids,
            "trade_time": [T0 + minute * MINUTE_US + 5 for _, minute in trades],
            "scaled_price": [100 + number for number in ids],
            "scaled_quantity": [10] * len(ids),
            "is_buyer_maker": [number % 2 == 0 for number in ids],
            "first_trade_id": ids,
            "last_trade_id": ids,
        },
        schema_overrides={"scaled_price": pl.Int128, "scaled_quantity": pl.Int128},
    )
    if void or bad:
        frame = frame.with_columns(is_void=pl.col("id").is_in(void), is_bad=pl.col("id").is_in(bad))
    return TradeRows(frame, 2, 1)


class Minutes:
    """The result, as minutes from T0."""

    def __init__(self) -> None:
        self.whole: list[int] = []
        self.partial: list[int] = []

    def __iadd__(self, told: AggregatedMinutes) -> Minutes:
        self.whole += minutes(told.whole)
        self.partial += minutes(told.partial)
        return self


def minutes(candles: pl.DataFrame) -> list[int]:
    return [(one - T0) // MINUTE_US for one in candles["open_time"].dt.epoch("us")]


def minutes_of(
    *blocks: TradeRows,
    ids_follow: bool = True,
    after_id: int | None = None,
    before_id: int | None = None,
) -> tuple[list[int], list[int], set[int]]:
    """Whole, partial and edge minutes."""
    aggregator = TradeAggregator("X", ids_follow=ids_follow, after_id=after_id)
    found = Minutes()
    for block in blocks:
        found += aggregator.add(block)
    found += aggregator.finish(before_id=before_id)
    edges = {(minute - T0) // MINUTE_US for minute in aggregator.edge_minutes}
    return found.whole, found.partial, edges


TAPE = [(1, 0), (2, 0), (3, 1), (4, 2), (5, 2), (6, 3)]


@pytest.mark.parametrize(
    ("after_id", "before_id", "whole", "edges"),
    [
        (None, None, [1, 2], {0, 3}),
        (0, None, [0, 1, 2], {3}),
        (None, 7, [1, 2, 3], {0}),
        (0, 7, [0, 1, 2, 3], set()),
        (-5, 9, [1, 2], set()),  # trades are known to be missing there
    ],
)
def test_neighbouring_files_prove_the_ends_of_a_file(
    after_id: int | None, before_id: int | None, whole: list[int], edges: set[int]
) -> None:
    partial = [minute for minute in range(4) if minute not in whole]
    found = minutes_of(rows(*TAPE), after_id=after_id, before_id=before_id)
    assert found == (whole, partial, edges)


@pytest.mark.parametrize("cut", range(1, 6))
def test_neighbouring_blocks_prove_each_other(cut: int) -> None:
    assert minutes_of(rows(*TAPE[:cut]), rows(*TAPE[cut:])) == ([1, 2], [0, 3], {0, 3})


@pytest.mark.parametrize("cut", range(1, 5))
def test_id_gap_makes_both_minutes_partial_even_between_blocks(cut: int) -> None:
    tape = [one for one in TAPE if one[0] != 3]
    whole, partial, edges = minutes_of(rows(*tape[:cut]), rows(*tape[cut:]), after_id=0)
    assert (whole, partial, edges) == ([], [0, 2, 3], {3})


def test_void_rows_count_only_for_the_ids() -> None:
    aggregator = TradeAggregator("X", ids_follow=True)
    first = aggregator.add(rows(*TAPE, void=(3, 4)))
    last = aggregator.finish()
    candles = pl.concat([first.whole, first.partial, last.whole, last.partial]).sort("open_time")
    assert minutes(candles) == [0, 2, 3]
    assert candles["trade_count"].to_list() == [2, 1, 1]
    assert minutes(pl.concat([first.whole, last.whole])) == [2]


def test_bad_rows_make_only_their_minute_partial() -> None:
    assert minutes_of(rows(*TAPE, bad=(4,)), after_id=0, before_id=7) == ([0, 1, 3], [2], set())


def test_ids_that_skip_by_design_prove_nothing_and_ends_stay_unproven() -> None:
    tape = [(7 * number, minute) for number, minute in TAPE]
    found = minutes_of(rows(*tape), ids_follow=False, after_id=6, before_id=43)
    assert found == ([1, 2], [0, 3], {0, 3})


def test_late_trade_reaches_its_minute_after_the_next_has_begun() -> None:
    aggregator = TradeAggregator("X", ids_follow=True, after_id=0)
    told_first = aggregator.add(rows((1, 0), (2, 1)))
    assert told_first.whole.is_empty()
    assert aggregator.aggregated_until_us <= T0
    rest = [aggregator.add(rows((3, 0), (4, 1), (5, 2), (6, 3))), aggregator.finish()]
    candles = pl.concat([one.whole for one in rest])
    assert candles["trade_count"].to_list() == [2, 2, 1]
    assert candles["close"].to_list()[0] == "1.03"


def test_each_minute_is_emitted_once_and_only_the_newest_is_in_memory() -> None:
    aggregator = TradeAggregator("X", ids_follow=True)
    found = Minutes()
    for number in range(200):
        found += aggregator.add(rows((number, number)))
        assert len(aggregator._parts) <= 3
    found += aggregator.finish()
    assert sorted(found.whole + found.partial) == list(range(200))


def test_blocks_of_different_decimals_are_joined_exactly() -> None:
    aggregator = TradeAggregator("X", ids_follow=True)
    aggregator.add(rows((1, 0), (2, 0)))
    more = rows((3, 0), (4, 0))
    aggregator.add(TradeRows(more.frame, 5, 0))
    (candle,) = aggregator.finish().partial.rows(named=True)
    assert (candle["open"], candle["close"]) == ("1.01000", "0.00104")
    assert (candle["volume"], candle["taker_buy_volume"]) == ("22", "11")
    # 1.01 × 1 + 1.02 × 1 + 0.00103 × 10 + 0.00104 × 10
    assert candle["quote_volume"] == "2.0507"
