"""Kline files are read strictly: good rows stay, bad ones are reported with line and reason."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.binance.files.kline_files import KlineBlock, KlineReader, read_klines
from include.binance.files.text_blocks import TextBlock
from include.domain.columns.candles import to_candles
from include.domain.timeframes import DAY_US, MINUTE_US, to_us
from include.errors import RejectedInputError

DAY = to_us(datetime(2025, 1, 1, tzinfo=UTC))
HEADER = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,"
    "taker_buy_volume,taker_buy_quote_volume,ignore"
)


def row(index: int = 0, *, unit: int = 1, **others: str) -> str:
    at = (DAY + index * MINUTE_US) // unit
    fields = {
        "open_time": str(at), "open": "1.50000000", "high": "3", "low": "1.00", "close": "2",
        "volume": "10.5", "close_time": str(at + MINUTE_US // unit - 1), "quote_volume": "20",
        "count": "4", "taker_buy_volume": "5", "taker_buy_quote_volume": "9.25", "ignore": "0",
    }  # fmt: skip
    return ",".join({**fields, **others}.values())


def read(tmp_path: Path, *lines: str, end: str = "\n", **options: tuple[int, int]) -> KlineBlock:
    path = tmp_path / "x.csv"
    path.write_bytes((end.join(lines) + end).encode())
    blocks = list(read_klines(path, "BTCUSDT", **options))
    assert len(blocks) == 1
    return blocks[0]


@pytest.mark.parametrize("header", [(), (HEADER,)])
@pytest.mark.parametrize(("unit", "name"), [(1, "us"), (1000, "ms")])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_header_unit_and_line_ends_are_detected(
    tmp_path: Path, header: tuple[str, ...], unit: int, name: str, end: str
) -> None:
    block = read(tmp_path, *header, row(0, unit=unit), row(1, unit=unit), end=end)
    assert (block.rejections, block.time_unit) == ([], name)
    candles = to_candles(block.candles)
    assert [one.open_time_us for one in candles] == [DAY, DAY + MINUTE_US]
    assert block.candles["open"].to_list() == ["1.50000000"] * 2
    assert (candles[0].trade_count, str(candles[0].taker_buy_quote_volume)) == (4, "9.25")


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (row()[:50], "7 columns, expected 12 (half a line?)"),
        (row() + ",1", "13 columns, expected 12 (half a line?)"),
        (row(open="abc"), "open is no number: 'abc'"),
        (row(open="1e3"), "open is no number: '1e3'"),
        (row(close=""), "close is no number: ''"),
        (row(high="NaN"), "high is no number: 'NaN'"),
        (row(volume="-10.5"), "volume is negative"),
        (row(count="4.5"), "trade_count is not an integer"),
        (
            row(open_time="12345"),
            "open_time is no time in ms (13 digits) or µs (16 digits): '12345'",
        ),
        (row(unit=1000), "open_time is not in the unit of the file's first row"),
        (row(open_time=str(DAY + 1)), "open_time is not a full minute"),
        (
            row(close_time=str(DAY + 5 * MINUTE_US - 1)),
            "close_time is not within the minute: not a 1m kline",
        ),
        (row(high="1.4"), "high is below another price"),
        (row(low="1.75"), "low is above another price"),
        (row(low="0.000"), "a price is zero"),
        (row(taker_buy_volume="11"), "taker_buy_volume exceeds volume"),
        (row(taker_buy_quote_volume="20.1"), "taker_buy_quote_volume exceeds quote_volume"),
        (row(count="0"), "volume and trade_count contradict each other"),
        (
            row(count="0", volume="0", taker_buy_volume="0"),
            "a row without trades has quote volume",
        ),
        (row(-1), "open_time is outside the period of the file"),
        (row(1440), "open_time is outside the period of the file"),
        (row(1), "the open_time occurs earlier in this file"),
        ("\0\0\0", "1 columns, expected 12 (half a line?)"),
    ],
)
def test_bad_row_is_rejected_and_the_others_are_read(tmp_path: Path, bad: str, reason: str) -> None:
    block = read(tmp_path, row(1), bad, row(2), window=(DAY, DAY + DAY_US))
    assert [(one.line, one.reason, one.raw) for one in block.rejections] == [(2, reason, bad)]
    assert [one.open_time_us for one in to_candles(block.candles)] == [
        DAY + MINUTE_US,
        DAY + 2 * MINUTE_US,
    ]


def test_rows_of_one_minute_that_contradict_each_other_are_all_rejected(tmp_path: Path) -> None:
    block = read(tmp_path, row(1), row(1, close="2.5"), row(2))
    assert [one.line for one in block.rejections] == [1, 2]
    assert len(block.candles) == 1


def test_bar_shortened_by_an_outage_is_accepted(tmp_path: Path) -> None:
    block = read(tmp_path, row(close_time=str(DAY + 17_000_000)))
    assert (block.rejections, len(block.candles)) == ([], 1)


def test_silent_minute_is_a_row(tmp_path: Path) -> None:
    zeros = dict.fromkeys(
        ("volume", "quote_volume", "count", "taker_buy_volume", "taker_buy_quote_volume"), "0"
    )
    block = read(tmp_path, row(0, open="2", high="2", low="2", **zeros))
    assert (block.rejections, to_candles(block.candles)[0].is_silent) == ([], True)


def test_rows_are_sorted_and_blank_lines_ignored(tmp_path: Path) -> None:
    block = read(tmp_path, row(2), "", row(1), "  ")
    assert block.rejections == []
    assert [one.open_time_us for one in to_candles(block.candles)] == [
        DAY + MINUTE_US,
        DAY + 2 * MINUTE_US,
    ]


def test_lines_are_counted_over_blocks_and_repeats_seen_across_them(tmp_path: Path) -> None:
    lines = [HEADER, *(row(index) for index in range(50)), row(3), "half"]
    path = tmp_path / "x.csv"
    path.write_text("\n".join(lines))
    blocks = list(read_klines(path, "BTCUSDT", block_bytes=700))
    assert len(blocks) > 5
    rejected = [(one.line, one.reason) for block in blocks for one in block.rejections]
    assert rejected == [
        (52, "the open_time occurs earlier in this file"),
        (53, "1 columns, expected 12 (half a line?)"),
    ]
    assert sum(len(block.candles) for block in blocks) == 50
    repeated = frozenset().union(*(block.repeated_us for block in blocks))
    assert repeated == {DAY + 3 * MINUTE_US}


def test_file_with_other_columns_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        RejectedInputError, match=r"x\.csv: the first line, with 2 fields, .*open_time,open"
    ):
        read(tmp_path, "date,price", "1,2")
    with pytest.raises(RejectedInputError, match="has 3 columns"):
        read(tmp_path, "1735689600000,1,2")


class CarefulReader(KlineReader):
    """Reads each block line by line."""

    def _read_plain(self, content: bytes) -> None:
        return None


class CountingReader(KlineReader):
    """Counts the blocks that are read the fast way."""

    fast = 0

    def _read_plain(self, content: bytes) -> pl.DataFrame | None:
        found = super()._read_plain(content)
        self.fast += found is not None
        return found


LINES = st.one_of(
    st.builds(
        row,
        st.integers(0, 9),
        unit=st.sampled_from([1, 1, 1, 1000]),
        open=st.sampled_from(["1.5", "1.50000000", "2", "0.00", "9", "007.5"]),
        volume=st.sampled_from(["10.5", "123456789012345678.123456789", "5.000", "0"]),
        count=st.sampled_from(["4", "0", "-0", "-1", "+1", "1e1", "", "4.0"]),
        ignore=st.sampled_from(["0", "", "x", "1e5"]),
    ),
    st.sampled_from([row(3)[:40], row(3) + ",1", "", " ", row(2) + " ", row(2, open='"1.5"')]),
)


@settings(max_examples=40)
@given(st.integers(0, 12), st.lists(LINES, max_size=4), st.sampled_from([1, 3, 50]))
def test_fast_reader_equals_the_careful_one(
    good: int, others: list[str], lines_a_block: int
) -> None:
    lines = [row(20 + index) for index in range(good)]
    lines[good // 2 : good // 2] = others
    plain = CountingReader("BTCUSDT", window=(DAY, DAY + 25 * MINUTE_US))
    careful = CarefulReader("BTCUSDT", window=(DAY, DAY + 25 * MINUTE_US))
    for first in range(0, len(lines), lines_a_block):
        text = "".join(f"{line}\n" for line in lines[first : first + lines_a_block])
        block = TextBlock(first + 1, text.encode())
        one, other = plain.read(block), careful.read(block)
        assert one.candles.equals(other.candles)
        assert (one.rejections, one.time_unit) == (other.rejections, other.time_unit)
        assert one.repeated_us == other.repeated_us
    if not others and good in range(1, 6):
        assert plain.fast == -(-good // lines_a_block)


@settings(max_examples=40)
@given(st.lists(LINES, min_size=1, max_size=12), st.sampled_from([1, 2, 3]))
def test_deferred_minutes_are_checked_as_if_the_file_were_one_block(
    lines: list[str], lines_a_block: int
) -> None:
    blocks = [
        TextBlock(
            first + 1,
            "".join(f"{line}\n" for line in lines[first : first + lines_a_block]).encode(),
        )
        for first in range(0, len(lines), lines_a_block)
    ]
    whole = KlineReader("BTCUSDT").read(
        TextBlock(1, "".join(f"{line}\n" for line in lines).encode())
    )

    found = KlineReader("BTCUSDT")
    twice = frozenset[int]().union(*(found.read(block).repeated_us for block in blocks))
    reader = KlineReader("BTCUSDT", aside=twice)
    parts = [reader.read(block) for block in blocks]
    last = reader.finish()
    parts += [] if last is None else [last]

    candles = pl.concat([part.candles for part in parts]).sort("open_time")
    assert candles.equals(whole.candles)
    rejections = [one for part in parts for one in part.rejections]
    assert sorted(rejections, key=lambda one: one.line) == whole.rejections
    assert reader.finish() is None


@pytest.mark.parametrize("unit", [1, 1_000])
def test_row_in_the_future_is_rejected_and_the_others_load(tmp_path: Path, unit: int) -> None:
    ahead = (time.time_ns() // 1_000 - DAY) // MINUTE_US + 3 * 1_440
    block = read(tmp_path, row(0, unit=unit), row(ahead, unit=unit), row(1, unit=unit))
    assert block.candles.height == 2
    (rejection,) = block.rejections
    assert rejection.reason.startswith("open_time lies in the future: ")
