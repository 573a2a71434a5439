"""``--columns`` names the columns of foreign files."""

from __future__ import annotations

import pytest

from include.errors import PermanentError, RejectedInputError
from include.jobs.files.column_maps import ColumnMap, column_map, placed

KAGGLE = [
    "open_time", "open", "high", "low", "close", "volume", "qav", "num_trades", "taker_base_vol",
    "taker_quote_vol",
]  # fmt: skip


def test_usual_names_are_found() -> None:
    assert placed(column_map("auto"), KAGGLE, len(KAGGLE), file="x") == [
        "open_time", "open", "high", "low", "close", "volume", "quote_volume", "trade_count",
        "taker_buy_volume", "taker_buy_quote_volume",
    ]  # fmt: skip
    header = ["", "Date", "Open", "High", "Low", "Close", "Volume", "symbol"]
    assert placed(column_map("auto"), header, len(header), file="x") == [
        "-", "open_time", "open", "high", "low", "close", "volume", "symbol",
    ]  # fmt: skip


def test_given_names_win() -> None:
    chosen = column_map("open_time=stamp, volume=Volume BTC, quote_volume=Volume USDT")
    header = ["stamp", "time", "open", "high", "low", "close", "Volume BTC", "Volume USDT"]
    assert placed(chosen, header, len(header), file="x") == [
        "open_time", "-", "open", "high", "low", "close", "volume", "quote_volume",
    ]  # fmt: skip


def test_order_names_each_column() -> None:
    chosen = column_map("open_time,open,high,low,close,volume,-,trade_count")
    assert placed(chosen, None, 8, file="x") == list(chosen.order)
    with pytest.raises(RejectedInputError, match="x has 7 columns, --columns has 8"):
        placed(chosen, None, 7, file="x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is none of open_time, open"),
        ("open_time=a,colour=b", "'colour=b' is none of open_time"),
        ("open_time=a,open", "'open' is none of"),
        ("open_time=a,open_time=b", "open_time is given twice"),
        ("open_time=", "has no name of the file"),
        ("open_time,open,high,low", "lacks close"),
        ("open_time,open,high,low,close,open", "open is given twice"),
    ],
)
def test_wrong_maps_say_what_would_be_right(text: str, message: str) -> None:
    with pytest.raises(PermanentError, match=message):
        column_map(text)


@pytest.mark.parametrize(
    ("text", "header", "message"),
    [
        ("open_time=stamp", KAGGLE, "no column stamp, which --columns names"),
        ("auto", KAGGLE[1:], "no column for open_time: give --columns open_time=NAME"),
        ("auto", None, "has no header: give all columns"),
        ("open=close", KAGGLE, "maps one column to open and close|no column for close"),
        ("open=a", ["time", "a", "a", "high", "low", "close"], "has 2 columns a"),
    ],
)
def test_files_without_these_columns_are_refused(
    text: str, header: list[str] | None, message: str
) -> None:
    with pytest.raises(RejectedInputError, match=message):
        placed(column_map(text), header, len(header or []), file="x.csv")


def test_auto_gives_no_names() -> None:
    assert column_map("auto") == ColumnMap({})
