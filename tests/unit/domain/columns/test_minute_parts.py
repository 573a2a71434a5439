"""Joined parts of minutes equal one aggregation of all their trades, or raise."""

from __future__ import annotations

from itertools import pairwise

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.domain.columns.minute_parts import MinuteParts, Scales, as_texts, join_parts, parts_of
from include.domain.timeframes import MINUTE_US

trades = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.integers(1, 10**12),
        st.integers(1, 10**16),
        st.integers(1, 10**18),
        st.booleans(),
    ),
    min_size=1,
    max_size=20,
)


def frame_of(rows: list[tuple[int, int, int, int, bool]], first_id: int = 0) -> pl.DataFrame:
    return pl.DataFrame(
        [(m * MINUTE_US, p, q, a, b, i, i) for i, (m, p, q, a, b) in enumerate(rows, first_id)],
        schema={
            "minute": pl.Int64, "price": pl.Int128, "quantity": pl.Int128,
            "quote_quantity": pl.Int128, "is_buyer_maker": pl.Boolean,
            "first_trade_id": pl.Int64, "last_trade_id": pl.Int64,
        },
        orient="row",
    )  # fmt: skip


def aggregated(frame: pl.DataFrame, *, quotes: bool) -> MinuteParts:
    return parts_of(
        frame if quotes else frame.drop("quote_quantity"),
        price_decimals=4,
        quantity_decimals=3,
        quote_decimals=8 if quotes else None,
    )


@given(trades, st.lists(st.integers(1, 19), max_size=4), st.booleans())
def test_minutes_do_not_depend_on_how_trades_are_split(
    rows: list[tuple[int, int, int, int, bool]], cuts: list[int], quotes: bool
) -> None:
    edges = [0, *sorted({cut for cut in cuts if cut < len(rows)}), len(rows)]
    parts = [aggregated(frame_of(rows[a:b], a), quotes=quotes) for a, b in pairwise(edges)]
    once = join_parts([aggregated(frame_of(rows), quotes=quotes)])
    assert join_parts(parts).frame.equals(once.frame)
    inside = [row for row in rows if row[0] == rows[0][0]]
    first = once.frame.filter(minute=rows[0][0] * MINUTE_US).row(0, named=True)
    assert first["high"] == max(row[1] for row in inside)
    assert first["volume"] == sum(row[2] for row in inside)
    assert first["quote_volume"] == sum(row[3] if quotes else row[1] * row[2] for row in inside)
    assert first["taker_buy_volume"] == sum(row[2] for row in inside if not row[4])


def test_texts_have_no_more_zeros_than_a_column_needs() -> None:
    texts = as_texts(aggregated(frame_of([(0, 12_500, 4_000, 0, True)]), quotes=False))
    assert texts.row(0)[1:7] == ("1.25", "1.25", "1.25", "1.25", "4", "5")


def test_sums_and_scales_beyond_128_bits_raise() -> None:
    huge = frame_of([(0, 10**20, 10**19, 0, True)])
    with pytest.raises(OverflowError, match="price × quantity"):
        aggregated(huge, quotes=False)
    part = aggregated(frame_of([(0, 10**12, 1, 0, True)]), quotes=False)
    other = MinuteParts(part.frame, Scales(36, 3, 7))
    with pytest.raises(OverflowError, match="open with 32 more decimals"):
        join_parts([part, other])
