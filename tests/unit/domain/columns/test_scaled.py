"""Decimals in polars keep every digit, or raise."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.domain.columns.scaled import (
    check_products_fit,
    check_sums_fit,
    decimals_needed,
    to_scaled,
    to_text,
)


def test_trailing_zeros_need_no_decimals() -> None:
    frame = pl.DataFrame({"a": ["1.50000000", "2"], "b": ["3.00", "0.001"]})
    assert decimals_needed(frame, ["a"]) == 1
    assert decimals_needed(frame, ["a", "b"]) == 3


def test_empty_frame_needs_no_decimals() -> None:
    assert decimals_needed(pl.DataFrame({"a": pl.Series([], dtype=pl.String)}), ["a"]) == 0


@given(
    whole=st.integers(0, 10**18),
    fraction=st.text("0123456789", max_size=18),
    more=st.integers(0, 2),
)
def test_text_becomes_an_integer_and_text_again_without_loss(
    whole: int, fraction: str, more: int
) -> None:
    text = f"{whole}.{fraction}" if fraction else str(whole)
    frame = pl.DataFrame({"a": [text]})
    decimals = decimals_needed(frame, ["a"]) + more
    scaled = frame.with_columns(to_scaled("a", decimals))
    kept = fraction.rstrip("0")
    assert scaled["a"].item() == int(str(whole) + kept.ljust(decimals, "0"))
    expected = f"{whole}.{kept.ljust(decimals, '0')}" if decimals else str(whole)
    assert scaled.select(to_text("a", decimals)).item() == expected


@pytest.mark.parametrize("text", ["1e-7", "abc", "1.2x", "1.2.3", "", ".5", "9" * 40])
def test_text_other_than_a_128_bit_number_raises(text: str) -> None:
    with pytest.raises(pl.exceptions.InvalidOperationError):
        pl.DataFrame({"a": [text]}).select(to_scaled("a", 4))


def test_sum_that_would_wrap_around_raises() -> None:
    frame = pl.DataFrame({"a": [2**126, 2**126]}, schema={"a": pl.Int128})
    with pytest.raises(OverflowError, match="a needs over 128 bits"):
        check_sums_fit(frame, ["a"])
    check_sums_fit(frame.head(1), ["a"])


def test_product_that_would_wrap_around_raises() -> None:
    frame = pl.DataFrame({"a": [2**64], "b": [2**63]}, schema={"a": pl.Int128, "b": pl.Int128})
    with pytest.raises(OverflowError, match="a × b"):
        check_products_fit(frame, "a", "b")
    check_products_fit(frame.with_columns(pl.col("b") // 2), "a", "b")
