"""Users' files show their symbol and their kind."""

from __future__ import annotations

import gzip
import os
import zipfile
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from include.binance.files import parquet_files
from include.domain.columns.candles import to_candles
from include.errors import PermanentError, RejectedInputError
from include.jobs.files.user_files import open_file, read_parts

AT_US = 1_735_689_600_000_000  # 2025-01-01
AT_MS = AT_US // 1000
OWN_HEADER = "ID,Price,Quantity,QuoteQuantity,Timestamp,IsBuyerMaker,IsBestMatch"
TRADES = [
    f"{7 + n},2.50,{n + 1}.125,{Decimal('2.5') * (n + Decimal('1.125'))},{AT_US + n * 30_000_000},"
    f"{'True' if n % 2 else 'False'},True"
    for n in range(6)
]
SPOT_AGG = [
    f"{7 + n},2.50,{n + 1}.125,{20 + 2 * n},{21 + 2 * n},{AT_MS + n * 30_000},true,true"
    for n in range(6)
]
UM_AGG = [row.rpartition(",")[0] for row in SPOT_AGG]
KLINE = f"{AT_MS},1,2,1,2,3,{AT_MS + 59_999},4,5,1,1,0"

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def make(name: str, text: str) -> Path:
        path = tmp_path / name
        if name.endswith(".gz"):
            path.write_bytes(gzip.compress(text.encode()))
        elif name.endswith(".zip"):
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr(name.replace(".zip", ".csv"), text)
        else:
            path.write_text(text)
        return path

    return make


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "zip"])
@pytest.mark.parametrize(
    ("name", "rows", "kind"),
    [
        ("ABC-trades-2025-01-01", [OWN_HEADER, *TRADES], "trades"),
        ("ABC-trades-2025-01-01", TRADES, "trades"),
        ("ABC-aggTrades-2025-01-01", SPOT_AGG, "agg_trades"),
        ("ABC-aggTrades-2025-01-01", UM_AGG, "agg_trades"),
        ("ABC-1m-2025-01-01", [KLINE], "klines"),
    ],
)
@pytest.mark.parametrize("market", ["spot", "um"])
def test_every_kind_is_recognised_by_its_rows_in_any_format_and_market(
    write: Write, name: str, rows: list[str], kind: str, suffix: str, market: str
) -> None:
    file = open_file(write(f"{name}.{suffix}", "\n".join(rows)), market=market)
    assert (file.kind, file.symbol) == (kind, "ABC" if market == "spot" else "ABC.P")
    parts = list(read_parts(file))
    assert [one for part in parts for one in part.rejections] == []
    assert sum(part.rows for part in parts) == len([row for row in rows if row != OWN_HEADER])


def test_pipe_is_refused_unopened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(RejectedInputError, match=r"pipe\.csv is no file"):
        open_file(tmp_path / "pipe.csv", symbol="BTCUSDT")


@pytest.mark.parametrize("symbol", ["BTC\nUSDT", "<b>X", "X\u202e", 'A"B', "=CMD|X", "A" * 51])
def test_text_with_other_signs_is_no_symbol(write: Write, symbol: str) -> None:
    path = write("plain.csv", "1,2,3")
    with pytest.raises(PermanentError, match="is not a symbol"):
        open_file(path, symbol=symbol)


def test_symbols_may_have_letters_of_any_script(write: Write) -> None:
    path = write("plain.csv", "1735689600000,1,1,1,1,2,1735689659999,2,1,1,1,0")
    assert open_file(path, symbol="币安人生USDT").symbol == "币安人生USDT"


@pytest.mark.parametrize("rows", [TRADES, SPOT_AGG])
def test_trades_and_agg_trades_give_the_same_minutes(write: Write, rows: list[str]) -> None:
    file = open_file(write("mine.csv", "\n".join(rows)), symbol="ABC")
    parts = list(read_parts(file))
    whole = to_candles(pl.concat([part.candles for part in parts]))
    partial = to_candles(pl.concat([part.partial for part in parts]))
    # the middle minute alone is proven: rows before and after the file are unknown
    assert [one.open_time_us for one in whole] == [AT_US + 60_000_000]
    assert len(partial) == 2
    assert whole[0].volume == Decimal("3.125") + Decimal("4.125")
    assert whole[0].quote_volume == Decimal("2.5") * whole[0].volume


def test_agg_trades_with_rounded_quote_amounts_are_refused(write: Write) -> None:
    fine = [row.replace("2.50", "0.02500001").replace(".125", ".1250001") for row in SPOT_AGG]
    file = open_file(write("mine.csv", "\n".join(fine)), symbol="ABC")
    with pytest.raises(RejectedInputError, match="rounds the quote amount of each fill of ABC"):
        list(read_parts(file))


@pytest.fixture
def parquet(tmp_path: Path) -> Callable[..., Path]:
    def make(name: str, *symbols: str) -> Path:
        names = [name.lower() for name in OWN_HEADER.split(",")]
        rows = [row.split(",") for row in TRADES]
        frame = pl.DataFrame(rows, schema=names, orient="row")
        if symbols:
            frame = frame.with_columns(
                symbol=pl.Series([symbols[n % len(symbols)] for n in range(frame.height)])
            )
        path = tmp_path / name
        frame.write_parquet(path)
        return path

    return make


def test_symbol_can_come_from_a_column(parquet: Callable[..., Path]) -> None:
    file = open_file(parquet("mine.parquet", "ABC"))
    assert (file.symbol, file.kind, file.key) == ("ABC", "trades", "ABC/mine.parquet")
    assert open_file(parquet("mine.parquet", "ABC"), market="um").symbol == "ABC.P"
    assert open_file(parquet("mine.parquet", "ABC.P"), symbol="ABC.P").symbol == "ABC.P"


@pytest.mark.parametrize("symbol", ["A/BC", "a-bc", "abc"])
def test_pairs_are_understood_as_symbols(
    write: Write, parquet: Callable[..., Path], symbol: str
) -> None:
    assert open_file(write("mine.csv", KLINE), symbol=symbol).symbol == "ABC"
    assert open_file(parquet("mine.parquet", symbol)).symbol == "ABC"
    assert open_file(write("A-BC-1m-2025-01.csv", KLINE)).symbol == "ABC"
    assert open_file(write("ABC-1m-2025-01.csv", KLINE), symbol=symbol, market="um").symbol == (
        "ABC.P"
    )


def test_rows_of_another_symbol_are_refused(
    parquet: Callable[..., Path],
) -> None:
    with pytest.raises(RejectedInputError, match="rows of 2 symbols, ABC, XYZ"):
        open_file(parquet("ABC-trades-2025-01-01.parquet", "ABC", "XYZ"))
    with pytest.raises(RejectedInputError, match="holds rows of XYZ, not of ABC"):
        open_file(parquet("ABC-trades-2025-01-01.parquet", "XYZ"))
    with pytest.raises(PermanentError, match="does not say its symbol"):
        open_file(parquet("mine.parquet"))


def test_rows_of_a_minute_are_checked_together_anywhere_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opens = [AT_MS + minute * 60_000 for minute in (0, 1, 2, 3, 0, 1)]
    frame = pl.DataFrame(
        {
            "open_time": opens, "open": "1", "high": "2", "low": "1",
            "close": ["2", "1", "1", "1", "1", "1"], "volume": "3",
            "close_time": [one + 59_999 for one in opens], "quote_volume": "4", "count": 5,
            "taker_buy_volume": "1", "taker_buy_quote_volume": "1",
        }
    )  # fmt: skip
    path = tmp_path / "ABC-1m-2025-01.parquet"
    frame.write_parquet(path)
    told = []
    for rows_a_block in (2, 100):
        monkeypatch.setattr(parquet_files, "BATCH_ROWS", rows_a_block)
        parts = list(read_parts(open_file(path, market="spot")))
        candles = [one for part in parts for one in to_candles(part.candles)]
        minutes = sorted((one.open_time_us - AT_US) // 60_000_000 for one in candles)
        rejected = sorted((one.line, one.reason) for part in parts for one in part.rejections)
        told.append((len(parts), minutes, rejected))
    contradiction = "rows of one open_time contradict each other"
    expected = (
        [1, 2, 3],
        [(1, contradiction), (5, contradiction), (6, "the open_time occurs earlier in this file")],
    )
    assert told == [(4, *expected), (1, *expected)]
