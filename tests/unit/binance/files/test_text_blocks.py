"""Blocks of rows know their line numbers, whatever precedes the rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from include.binance.files.text_blocks import text_blocks
from include.binance.files.trade_files import FUTURES_AGG_TRADES
from include.errors import RejectedInputError

HEADER = "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker"
ROW = "7,2.50,4.125,10,12,1735725600000,true"


@pytest.mark.parametrize(
    ("before", "first_line"),
    [("", 1), (f"{HEADER}\n", 2), (f"\n\r\n{HEADER}\r\n", 4), (f"\ufeff{HEADER}\n", 2), ("\n", 2)],
)
def test_lines_are_numbered_from_the_files_beginning(
    tmp_path: Path, before: str, first_line: int
) -> None:
    path = tmp_path / "x.csv"
    path.write_text(f"{before}{ROW}\n{ROW}", encoding="utf-8")
    lines = [
        row
        for block in text_blocks(path, (FUTURES_AGG_TRADES,))
        for row in block.lines().select("line", "raw").rows()
    ]
    assert lines == [(first_line, ROW), (first_line + 1, ROW)]


def test_blocks_together_are_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("\n".join([HEADER, *([ROW] * 50)]))
    blocks = list(text_blocks(path, (FUTURES_AGG_TRADES,), block_bytes=200))
    assert len(blocks) > 5
    assert b"".join(block.content for block in blocks).decode().split("\n") == [ROW] * 50
    assert [block.first_line for block in blocks] == [
        2 + sum(one.content.count(b"\n") for one in blocks[:place]) for place in range(len(blocks))
    ]


def test_other_kinds_of_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("1,2,3\n")
    with pytest.raises(RejectedInputError, match="3 columns; known are futures aggTrades"):
        list(text_blocks(path, (FUTURES_AGG_TRADES,)))
