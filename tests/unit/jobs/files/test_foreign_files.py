"""Foreign files are read strictly; what they do not say is unknown, never zero."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from include.binance.files import archives
from include.errors import RejectedInputError
from include.jobs.files import foreign_files
from include.jobs.files.column_maps import column_map
from include.jobs.files.foreign_files import ForeignBlock, read_foreign
from include.jobs.files.user_files import open_file

HEADER = "time,open,high,low,close,volume"
UNKNOWN = ("quote_volume", "trade_count", "taker_buy_volume", "taker_buy_quote_volume")
FULL = "open_time,open,high,low,close,volume,qav,num_trades,taker_base_vol,taker_quote_vol"


def read(path: Path, columns: str = "auto") -> ForeignBlock:
    blocks = list(read_foreign(path, "ABC", column_map(columns)))
    return ForeignBlock(
        pl.concat(one.candles for one in blocks),
        pl.concat(one.incomplete for one in blocks),
        [one for block in blocks for one in block.rejections],
        blocks[0].time_unit,
    )


def of_lines(folder: Path, *lines: str, columns: str = "auto", end: str = "\n") -> ForeignBlock:
    path = folder / "mine.csv"
    path.write_text(end.join(lines) + end, newline="")
    return read(path, columns)


def minute(number: int) -> datetime:
    return datetime(2024, 1, 1, 0, number, tzinfo=UTC)


@pytest.mark.parametrize(
    ("first", "second", "unit"),
    [
        ("2024-01-01 00:00:00", "2024-01-01 00:01:00", None),
        ("2024-01-01T00:00", "2024-01-01T00:01", None),
        ("2024-01-01T00:00:00Z", "2024-01-01T00:01:00Z", None),
        ("2024-01-01 00:00:00.000 UTC", "2024-01-01 00:01:00.000 UTC", None),
        ("2024-01-01 05:30:00+05:30", "2024-01-01 05:31:00+05:30", None),
        ("2023-12-31T19:00:00-0500", "2023-12-31T19:01:00-0500", None),
        ("1704067200", "1704067260", None),
        ("1704067200000", "1704067260000", "ms"),
        ("1704067200000000", "1704067260000000", "us"),
        ("1704067200000000000", "1704067260000000000", None),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_times_are_understood(
    tmp_path: Path, first: str, second: str, unit: str | None, end: str
) -> None:
    found = of_lines(tmp_path, HEADER, f"{first},1,2,1,2,3", f'"{second}",1,2,1,2,3', end=end)
    assert (found.rejections, found.time_unit) == ([], unit)
    assert found.incomplete["open_time"].to_list() == [minute(0), minute(1)]


def test_plain_ohlcv_leaves_the_other_values_unknown(tmp_path: Path) -> None:
    found = of_lines(
        tmp_path, HEADER, "2024-01-01 00:00:00,1.10,2,1,1.5,3.25", "2024-01-01 00:01:00,1,1,1,1,0"
    )
    assert found.candles.is_empty()
    rows = found.incomplete.to_dicts()
    assert [rows[0][name] for name in ("open", "volume")] == ["1.10", "3.25"]
    assert [row[name] for row in rows for name in UNKNOWN] == [None] * 8


def test_rows_with_all_nine_values_are_complete(tmp_path: Path) -> None:
    found = of_lines(
        tmp_path,
        FULL,
        "1704067200000,1,2,1,2,3,4,5,1,1.5",
        "1704067260000,1,2,1,2,3,4,5.0,1,1.5",
        "1704067320000,1,2,1,2,3,nan,,NULL,1.5",
    )
    assert found.rejections == []
    assert found.candles["trade_count"].to_list() == [5, 5]
    (row,) = found.incomplete.to_dicts()
    assert [row[name] for name in UNKNOWN] == [None, None, None, "1.5"]


def test_columns_can_be_given_by_name_or_order(tmp_path: Path) -> None:
    row = "9,1704067200,2,1,1.5,1.2,7"
    by_name = of_lines(
        tmp_path, "id,t,h,l,c,o,n", row,
        columns="open_time=t,open=o,high=h,low=l,close=c,trade_count=n",
    )  # fmt: skip
    order = "-,open_time,high,low,close,open,trade_count"
    for lines in ([row], ["id,t,h,l,c,o,n", row]):
        found = of_lines(tmp_path, *lines, columns=order)
        assert found.incomplete.equals(by_name.incomplete)
    (values,) = by_name.incomplete.to_dicts()
    assert (values["open"], values["trade_count"], values["volume"]) == ("1.2", 7, None)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("2024-01-01,1,2,1,2,3", "open_time is no time"),
        ("2024-01-01 00:00:30,1,2,1,2,3", "open_time is no time"),
        ("2024-13-01 00:00:00,1,2,1,2,3", "open_time is no time"),
        ("1704067200000,1,2,1,2,3", "open_time is no time of the first row's kind"),
        (",1,2,1,2,3", "open_time is missing"),
        ("2024-01-01 00:01:00,,2,1,2,3", "open is missing"),
        ("2024-01-01 00:01:00,1,2,1,nan,3", "close is missing"),
        ("2024-01-01 00:01:00,1,2,1,x,3", "close is no number: 'x'"),
        ("2024-01-01 00:01:00,1,2,1,2,-3", "volume is negative"),
        ("2024-01-01 00:01:00,1,1.5,1,2,3", "high is below another price"),
        ("2024-01-01 00:01:00,1,2,1.5,2,3", "low is above another price"),
        ("2024-01-01 00:01:00,0,2,0,2,3", "a price is zero"),
        ("2024-01-01 00:01:00,1,2,1", "4 columns, expected 6"),
    ],
)
def test_bad_rows_are_told_with_line_and_reason(tmp_path: Path, row: str, reason: str) -> None:
    found = of_lines(
        tmp_path, HEADER, "2024-01-01 00:00:00,1,2,1,2,3", row, "2024-01-01 00:02:00,1,2,1,2,3"
    )
    assert found.incomplete["open_time"].to_list() == [minute(0), minute(2)]
    (one,) = found.rejections
    assert one.line == 3
    assert one.reason.startswith(reason)
    assert one.raw == row


def test_known_values_are_checked_against_each_other(tmp_path: Path) -> None:
    found = of_lines(
        tmp_path,
        FULL,
        "1704067200000,1,2,1,2,3,4,5,4,1",
        "1704067260000,1,2,1,2,3,4,5,1,6",
        "1704067320000,1,2,1,2,3,4,0,1,1",
        "1704067380000,1,2,1,2,0,,0,0,0",
    )
    assert [one.reason for one in found.rejections] == [
        "taker_buy_volume exceeds volume",
        "taker_buy_quote_volume exceeds quote_volume",
        "volume and trade_count contradict each other",
    ]
    assert found.incomplete.height == 1


def test_exponents_stay_exact(tmp_path: Path) -> None:
    found = of_lines(tmp_path, HEADER, "2024-01-01 00:00:00,1.25e-05,2E+1,1e-5,2,3e0")
    (row,) = found.incomplete.to_dicts()
    assert [row[name] for name in ("open", "high", "low", "volume")] == [
        "0.0000125", "20", "0.00001", "3",
    ]  # fmt: skip


def test_hours_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RejectedInputError, match="at least 60 minutes apart"):
        of_lines(tmp_path, HEADER, *(f"2024-01-01 0{hour}:00:00,1,2,1,2,3" for hour in range(3)))


def test_rows_of_one_minute_are_checked_together_anywhere_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [HEADER] + [
        f"2024-01-01 00:0{number}:00,1,2,1,{close},3"
        for number, close in ((0, 2), (1, 1), (2, 1), (0, 1), (1, 1))
    ]
    for size in (70, 1 << 20):
        monkeypatch.setattr(
            foreign_files,
            "read_blocks",
            lambda path, *, on_read=None, block_bytes=0, size=size: archives.read_blocks(
                path, block_bytes=size, on_read=on_read
            ),
        )
        found = of_lines(tmp_path, *lines)
        assert sorted(found.incomplete["open_time"].to_list()) == [minute(1), minute(2)]
        assert sorted((one.line, one.reason) for one in found.rejections) == [
            (2, "rows of one open_time contradict each other"),
            (5, "rows of one open_time contradict each other"),
            (6, "the open_time occurs earlier in this file"),
        ]


@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Tokyo"])
def test_parquet_with_floats_and_times_is_read(tmp_path: Path, zone: str | None) -> None:
    moments = pl.Series("date", [minute(0), minute(1)]).dt.convert_time_zone("UTC")
    moments = (
        moments.dt.replace_time_zone(None) if zone is None else moments.dt.convert_time_zone(zone)
    )
    frame = pl.DataFrame(
        {
            "date": moments.dt.cast_time_unit("ns"),
            "open": [1.1, 0.00001], "high": [2.0, 2.0], "low": [0.1, 0.00001], "close": [0.3, 2.0],
            "volume": [None, 42283.58], "num_trades": [3, None], "note": [["x"], ["y"]],
        }
    )  # fmt: skip
    path = tmp_path / "mine.parquet"
    frame.write_parquet(path)
    found = read(path)
    assert found.rejections == []
    rows: list[dict[str, Any]] = found.incomplete.to_dicts()
    assert [row["open_time"] for row in rows] == [minute(0), minute(1)]
    assert [row["open"] for row in rows] == ["1.1", "0.00001"]
    assert [row["volume"] for row in rows] == [None, "42283.58"]
    assert [row["trade_count"] for row in rows] == [3, None]


def test_rows_of_several_symbols_are_refused(tmp_path: Path) -> None:
    lines = ["time,open,high,low,close,symbol"] + [
        f"2024-01-01 00:0{number}:00,1,2,1,2,{symbol}"
        for number, symbol in enumerate(("ABC", "XYZ"))
    ]
    with pytest.raises(RejectedInputError, match="rows of 2 symbols"):
        of_lines(tmp_path, *lines)


@pytest.mark.parametrize("name", ["XYZ", "XYZ/USDT"])
def test_rows_of_another_symbol_are_refused(tmp_path: Path, name: str) -> None:
    header = "time,open,high,low,close,symbol"
    with pytest.raises(RejectedInputError, match="rows of another symbol than ABC"):
        of_lines(tmp_path, header, f"2024-01-01 00:00:00,1,2,1,2,{name}")
    assert of_lines(tmp_path, header, "2024-01-01 00:00:00,1,2,1,2,A/BC").rejections == []


def test_coin_m_amounts_are_refused_with_columns_too(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(
        "time,open,high,low,close,volume,quote_volume\n"
        "1735689600,42000.1,42010.0,41990.5,42001,4321,10.2881\n"
    )
    with pytest.raises(RejectedInputError, match="COIN-M rows"):
        open_file(path, symbol="BTCUSDT", columns="auto")


def test_files_without_columns_name_the_option(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv.gz"
    path.write_bytes(gzip.compress(f"{HEADER}\n2024-01-01 00:00:00,1,2,1,2,3\n".encode()))
    with pytest.raises(RejectedInputError, match="Candles of others need --columns"):
        open_file(path, symbol="ABC")
    assert open_file(path, symbol="ABC", columns="auto").columns is not None
