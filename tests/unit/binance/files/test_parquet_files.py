"""Parquet files yield the same rows as the exchange's text, or an error says why not."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from include.binance.files.kline_files import KLINES, read_klines
from include.binance.files.parquet_files import (
    BATCH_ROWS,
    check_parquet,
    parquet_layout,
    parquet_symbols,
)
from include.binance.files.text_blocks import check_file, layout_of, text_blocks
from include.binance.files.trade_files import (
    FUTURES_AGG_TRADES,
    SPOT_AGG_TRADES,
    SPOT_TRADES,
    UM_TRADES,
    TradeReader,
)
from include.domain.columns.candles import to_candles
from include.errors import RejectedInputError

AT_MS = 1_735_689_600_000  # 2025-01-01
EXACT = pl.Decimal(38, 8)

KLINE = {
    "open_time": [AT_MS, AT_MS + 60_000],
    "open": ["0.10000001", "0.2"],
    "high": ["0.30000000", "0.2"],
    "low": ["0.10000000", "0.2"],
    "close": ["0.29999999", "0.2"],
    "volume": ["12345678.12345678", "0"],
    "close_time": [AT_MS + 59_999, AT_MS + 119_999],
    "quote_volume": ["3.1", "0"],
    "count": [3, 0],
    "taker_buy_volume": ["1.5", "0"],
    "taker_buy_quote_volume": ["0.3", "0"],
}
NUMBERS = [name for name, values in KLINE.items() if isinstance(values[0], str)]


@pytest.fixture
def klines() -> pl.DataFrame:
    return pl.DataFrame(KLINE).with_columns(pl.col(NUMBERS).cast(EXACT))


def written(folder: Path, frame: pl.DataFrame) -> Path:
    path = folder / "file.parquet"
    frame.write_parquet(path)
    return path


def text_of(folder: Path) -> Path:
    path = folder / "file.csv"
    rows = [[str(KLINE[name][row]) for name in KLINE] for row in (0, 1)]
    path.write_text("".join(",".join([*row, "0"]) + "\n" for row in rows))
    return path


def test_decimals_and_text_give_the_same_candles(tmp_path: Path, klines: pl.DataFrame) -> None:
    (block,) = read_klines(written(tmp_path, klines), "X")
    (text,) = read_klines(text_of(tmp_path), "X")
    assert to_candles(block.candles) == to_candles(text.candles)
    assert (block.rejections, block.time_unit) == ([], "ms")
    assert to_candles(block.candles)[0].volume == Decimal("12345678.12345678")


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Tokyo"])
def test_times_may_be_timestamps_of_any_unit_and_zone(
    tmp_path: Path, klines: pl.DataFrame, unit: str, zone: str | None
) -> None:
    times = pl.from_epoch(pl.col("open_time", "close_time"), "ms").dt.cast_time_unit(unit)
    if zone is not None:
        times = times.dt.replace_time_zone("UTC").dt.convert_time_zone(zone)
    (block,) = read_klines(written(tmp_path, klines.with_columns(times)), "X")
    assert [one.open_time_us for one in to_candles(block.candles)] == [
        AT_MS * 1000, (AT_MS + 60_000) * 1000,
    ]  # fmt: skip
    assert block.time_unit == ("ms" if unit == "ms" else "us")


def test_text_and_integer_columns_are_read_in_any_order(tmp_path: Path) -> None:
    frame = pl.DataFrame(KLINE).with_columns(Comment=pl.lit("mine"), low=pl.col("low"))
    shuffled = frame.select(sorted(frame.columns))
    (block,) = read_klines(written(tmp_path, shuffled), "X")
    (text,) = read_klines(text_of(tmp_path), "X")
    assert to_candles(block.candles) == to_candles(text.candles)


@pytest.mark.parametrize(
    ("column", "kind", "message"),
    [
        ("close", pl.Float64, r"column close is Float64; .*DECIMAL\(38, 8\).*a float has lost"),
        ("volume", pl.Float32, "column volume is Float32"),
        ("count", pl.Float64, "column count is Float64; it should be INT64"),
        ("open_time", pl.Float64, "column open_time is Float64; it should be TIMESTAMP"),
        ("open", pl.Date, "column open is Date"),
    ],
)
def test_inexact_column_type_is_refused_with_the_allowed_ones(
    tmp_path: Path, klines: pl.DataFrame, column: str, kind: pl.DataType, message: str
) -> None:
    wrong = pl.lit(1).cast(kind) if kind == pl.Date else pl.col(column).cast(kind)
    path = written(tmp_path, klines.with_columns(wrong.alias(column)))
    with pytest.raises(RejectedInputError, match=message):
        parquet_layout(path, (KLINES,))
    with pytest.raises(RejectedInputError, match=message):
        list(read_klines(path, "X"))


def test_bad_row_is_rejected_by_its_number_and_the_others_are_read(
    tmp_path: Path, klines: pl.DataFrame
) -> None:
    bad = pl.DataFrame(
        [(None, "", "1\n2", "x,y")], schema=["open", "high", "low", "close"], orient="row"
    )
    texts = pl.DataFrame(KLINE)
    frame = pl.concat([texts[:1], bad.cast(pl.String), texts[1:]], how="diagonal")
    (block,) = read_klines(written(tmp_path, frame), "X")
    assert [one.line for one in block.rejections] == [2]
    assert block.candles.height == 2


def test_zeros_added_by_a_wide_decimal_are_not_digits(tmp_path: Path) -> None:
    wide = pl.DataFrame(KLINE).with_columns(pl.col(NUMBERS).cast(pl.Decimal(38, 20)))
    (block,) = read_klines(written(tmp_path, wide), "X")
    assert block.rejections == []
    assert to_candles(block.candles)[0].close == Decimal("0.29999999")


def trades(rows: int) -> pl.DataFrame:
    ids = pl.int_range(rows, eager=True)
    return pl.DataFrame({"ID": ids}).with_columns(
        Price=pl.lit("2.5").cast(EXACT),
        Quantity=pl.lit("4").cast(EXACT),
        QuoteQuantity=pl.lit("10").cast(EXACT),
        Timestamp=AT_MS * 1000 + pl.col("ID") * 1_000,
        IsBuyerMaker=pl.col("ID") % 2 == 0,
        IsBestMatch=pl.lit(value=True),
    )


def test_file_of_many_batches_is_aggregated_like_one_batch(tmp_path: Path) -> None:
    rows = 2 * BATCH_ROWS + 17
    path = written(tmp_path, trades(rows))
    seen: list[float] = []
    blocks = list(TradeReader("X", SPOT_TRADES).read_file(path, on_read=seen.append))
    assert sum(block.trades for block in blocks) == rows
    candles = pl.concat([part for block in blocks for part in (block.whole, block.partial)])
    assert sum(one.trade_count for one in to_candles(candles)) == rows
    assert sum(one.volume for one in to_candles(candles)) == 4 * rows
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    lines = [block.first_line for block in text_blocks(path, (SPOT_TRADES,))]
    assert lines[0] == 1
    assert len(lines) > 1


ALL = (KLINES, SPOT_TRADES, UM_TRADES, SPOT_AGG_TRADES, FUTURES_AGG_TRADES)
AGG = {
    "agg_trade_id": [1], "price": ["1"], "quantity": ["1"], "first_trade_id": [1],
    "last_trade_id": [1], "transact_time": [AT_MS], "is_buyer_maker": [True],
}  # fmt: skip


def test_layout_is_chosen_by_column_names(tmp_path: Path, klines: pl.DataFrame) -> None:
    assert layout_of(written(tmp_path, klines), ALL) is KLINES
    assert layout_of(written(tmp_path, trades(1)), ALL) is SPOT_TRADES
    agg = layout_of(written(tmp_path, pl.DataFrame(AGG)), (FUTURES_AGG_TRADES, *ALL))
    assert agg is FUTURES_AGG_TRADES
    with pytest.raises(RejectedInputError, match="has the columns a, b; known are 1m klines"):
        layout_of(written(tmp_path, pl.DataFrame({"a": [1], "b": [2]})), ALL)


def test_symbols_are_read_from_their_column(tmp_path: Path, klines: pl.DataFrame) -> None:
    assert parquet_symbols(written(tmp_path, klines)) == []
    both = klines.with_columns(Symbol=pl.Series(["B", "A"]))
    assert parquet_symbols(written(tmp_path, both)) == ["A", "B"]


def test_file_of_very_many_equal_rows_is_refused_unread(
    tmp_path: Path, klines: pl.DataFrame
) -> None:
    path = tmp_path / "BTCUSDT-1m-2024-01-01.parquet"
    row = klines.head(1)
    row.join(pl.DataFrame({"n": range(1_500_000)}), how="cross").drop("n").write_parquet(path)
    with pytest.raises(RejectedInputError, match=r"1,500,000 rows .* more than 250 times its size"):
        check_parquet(path)


def test_file_damaged_anywhere_is_refused(tmp_path: Path) -> None:
    frame = trades(50_000)
    path = tmp_path / "file.parquet"
    frame.write_parquet(path, row_group_size=10_000, compression="zstd")
    check_file(path)
    whole = path.read_bytes()
    for broken in (whole[:-5], b"PAR1", b"", whole[: len(whole) // 2]):
        path.write_bytes(broken)
        with pytest.raises(RejectedInputError, match=r"file\.parquet is damaged"):
            check_file(path)
    # Parquet has no checksums: what hits a page's header or a compressed frame is noticed
    first, last = len(whole) // 3, 2 * len(whole) // 3
    path.write_bytes(whole[:first] + b"\xff" * (last - first) + whole[last:])
    with pytest.raises(RejectedInputError, match="is damaged"):
        check_file(path)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RejectedInputError, match="does not exist"):
        check_file(tmp_path / "no.parquet")


def test_times_before_the_exchange_existed_are_rejected(
    tmp_path: Path, klines: pl.DataFrame
) -> None:
    old = pl.lit(datetime(1970, 1, 2, tzinfo=UTC)).alias("open_time")
    (block,) = read_klines(written(tmp_path, klines.with_columns(old)), "X")
    assert len(block.rejections) == 2
