"""Lines keep their numbers, and what is no text is rejected, not lost."""

from __future__ import annotations

import pytest

from include.binance.files.columns import (
    MAX_RAW_CHARACTERS,
    Layout,
    choose_layout,
    lines_of,
    part,
    split,
)
from include.binance.files.trade_files import FUTURES_AGG_TRADES, SPOT_TRADES
from include.errors import RejectedInputError

PAIR = Layout("pairs", ("a", "b"), ("key,value",))


def test_lines_are_numbered_from_the_blocks_first_and_blank_ones_skipped() -> None:
    lines = lines_of(b"x\r\n\n  \ny", first_line=10)
    assert lines.rows() == [(10, "x"), (13, "y")]


def test_byte_order_mark_is_not_part_of_the_first_value() -> None:
    assert lines_of("\ufeff1,2\n".encode(), first_line=1)["raw"].to_list() == ["1,2"]


def test_invalid_utf_8_stays_in_its_line() -> None:
    assert lines_of(b"1,\xff2\n3,4\n", first_line=1)["raw"].to_list() == ["1,\ufffd2", "3,4"]


def test_fields_are_stripped_of_spaces_and_quotes() -> None:
    table, bad = split(lines_of(b'"1", 2 \n', first_line=1), PAIR)
    assert (table.select("a", "b").rows(), bad) == ([("1", "2")], [])


def test_long_rejected_line_is_truncated() -> None:
    _, bad = split(lines_of(b"x" * 10_000, first_line=1), PAIR)
    assert len(bad[0].raw) == MAX_RAW_CHARACTERS


def test_header_is_recognised_by_its_first_character() -> None:
    assert choose_layout("Key, Value", (PAIR,), file="f") == (PAIR, True)
    assert choose_layout("1,2", (PAIR,), file="f") == (PAIR, False)
    assert choose_layout('"1","2"', (PAIR,), file="f") == (PAIR, False)


@pytest.mark.parametrize("first", ["other,names", "1,2,3"])
def test_unknown_layout_is_refused_with_the_known_ones(first: str) -> None:
    with pytest.raises(RejectedInputError, match="known are pairs: a,b"):
        choose_layout(first, (PAIR,), file="f")


def test_no_rows_are_no_rejections() -> None:
    table, bad = split(lines_of(b"", first_line=1), PAIR)
    assert (table.height, bad, part(table.with_columns(reason=None))[1]) == (0, [], [])


@pytest.mark.parametrize(
    ("row", "layout"),
    [
        ("1,2.5,4,10,1735689600000,True,True", SPOT_TRADES),
        ("1,2.5,4,10,11,1735689600000,true", FUTURES_AGG_TRADES),
    ],
)
def test_layouts_of_one_width_are_distinguished_by_their_flags(row: str, layout: Layout) -> None:
    for both in ((SPOT_TRADES, FUTURES_AGG_TRADES), (FUTURES_AGG_TRADES, SPOT_TRADES)):
        assert choose_layout(row, both, file="f") == (layout, False)
