"""Files whose market is wrong, or not named, are refused instead of loaded."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import polars as pl
import pytest

from include.errors import PermanentError, RejectedInputError
from include.jobs.files.user_files import UserFile, open_file

AT_MS = 1_735_689_600_000  # 2025-01-01
KLINE_HEADER = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,"
    "taker_buy_volume,taker_buy_quote_volume,ignore"
)
COIN_M_TRADES_HEADER = "id,price,qty,base_qty,time,is_buyer_maker"
UM_TRADES_HEADER = "id,price,qty,quote_qty,time,is_buyer_maker"
AGG_HEADER = "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker"
# BTCUSD_PERP: 4,321 contracts of 100 USD at 42,000 are 10.288 BTC.
COIN_M_KLINE = f"{AT_MS},42000.1,42010.0,41990.5,42001,4321,{AT_MS + 59_999},10.2881,99,2000,4.7,0"
LINEAR_KLINE = f"{AT_MS},42000.1,42010.0,41990.5,42001,2,{AT_MS + 59_999},84002,99,1,42001,0"
# LINKUSD_PERP: a contract is 10 USD.
SMALL_CONTRACT = f"{AT_MS},14.1,14.2,14.0,14.15,300,{AT_MS + 59_999},212.1,9,100,70,0"
COIN_M_TRADE = f"7,42000.0,50,0.11904762,{AT_MS},true"
UM_TRADE = f"7,42000.0,0.050,2100.0,{AT_MS},true"
AGG = f"7,42000.0,50,20,21,{AT_MS},true"


def opened(folder: Path, name: str, *lines: str, **options: str) -> UserFile:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "\n".join(lines)
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(text.encode()))
    elif name.endswith(".zip"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(options.pop("inside", path.name.replace(".zip", ".csv")), text)
    else:
        path.write_text(text)
    return open_file(path, **options)


COIN_M_FILES = [
    ("BTCUSD_PERP-1m-2025-01.zip", [KLINE_HEADER, COIN_M_KLINE], "klines"),
    ("BTCUSD_PERP-aggTrades-2025-01-01.csv", [AGG_HEADER, AGG], "agg_trades"),
    ("btcusd_perp-trades-2025-01-01.csv.gz", [COIN_M_TRADES_HEADER, COIN_M_TRADE], "trades"),
    ("BTCUSD_PERP.csv", [COIN_M_KLINE], "klines"),
    ("BTCUSD_PERP-aggTrades-2025.csv", [AGG], "agg_trades"),
]


@pytest.mark.parametrize(("name", "lines", "kind"), COIN_M_FILES)
@pytest.mark.parametrize(
    "options", [{"symbol": "BTCUSD_PERP"}, {"symbol": "btc/usd:btc", "market": "um"}]
)
def test_coin_m_files_are_opened(
    tmp_path: Path, name: str, lines: list[str], kind: str, options: dict[str, str]
) -> None:
    found = opened(tmp_path, name, *lines, **options)
    assert (found.symbol, found.kind) == ("BTCUSD_PERP", kind)


def test_dump_of_coin_m_needs_no_option(tmp_path: Path) -> None:
    name, lines, _ = COIN_M_FILES[0]
    assert opened(tmp_path, name, *lines).symbol == "BTCUSD_PERP"
    assert opened(tmp_path, name, *lines, market="um").symbol == "BTCUSD_PERP"


@pytest.mark.parametrize(("name", "lines", "kind"), COIN_M_FILES)
def test_contract_in_a_name_contradicts_another_symbol(
    tmp_path: Path, name: str, lines: list[str], kind: str
) -> None:
    with pytest.raises(RejectedInputError, match=r"BTCUSD_PERP is a COIN-M future.*--market cm"):
        opened(tmp_path, name, *lines, symbol="BTCUSDT")


def test_folder_of_coin_m_contradicts_another_market(tmp_path: Path) -> None:
    with pytest.raises(RejectedInputError, match=r"folder of COIN-M files.*of um"):
        opened(tmp_path, "futures/cm/mine.csv", LINEAR_KLINE, symbol="BTCUSDT.P")
    with pytest.raises(PermanentError, match="no contract of COIN-M"):
        opened(tmp_path, "futures/cm/ABC-1m-2025-01.csv", LINEAR_KLINE)


@pytest.mark.parametrize("options", [{}, {"market": "um"}, {"symbol": "BTCUSDT_250328"}])
def test_dated_usd_m_futures_show_their_market(tmp_path: Path, options: dict[str, str]) -> None:
    found = opened(tmp_path, "BTCUSDT_250328-1m-2025-01.csv", KLINE_HEADER, LINEAR_KLINE, **options)
    assert found.symbol == "BTCUSDT_250328.P"


def test_name_inside_a_zip_counts(tmp_path: Path) -> None:
    with pytest.raises(RejectedInputError, match="BTCUSD_PERP is a COIN-M future"):
        opened(
            tmp_path, "mine.zip", AGG, symbol="BTCUSDT", market="um",
            inside="BTCUSD_PERP-aggTrades-2025-01-01.csv",
        )  # fmt: skip


def test_linear_amounts_are_refused_as_coin_m(tmp_path: Path) -> None:
    with pytest.raises(RejectedInputError, match=r"holds no COIN-M rows.*--market spot"):
        opened(tmp_path, "ETHUSD_250328-1m-2025-01.csv", LINEAR_KLINE)


@pytest.mark.parametrize(
    "lines",
    [
        [COIN_M_KLINE],
        [KLINE_HEADER, COIN_M_KLINE],
        [SMALL_CONTRACT],
        [COIN_M_TRADE],
        [COIN_M_TRADES_HEADER, COIN_M_TRADE],
    ],
)
def test_amounts_and_headers_of_coin_m_are_refused_under_any_name(
    tmp_path: Path, lines: list[str]
) -> None:
    with pytest.raises(RejectedInputError, match=r"COIN-M.*--symbol BTCUSD_PERP"):
        opened(tmp_path, "mine.csv", *lines, symbol="BTCUSDT", market="um")


def test_parquet_of_coin_m_rows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.parquet"
    pl.DataFrame(
        [COIN_M_KLINE.split(",")], schema=KLINE_HEADER.split(","), orient="row"
    ).write_parquet(path)
    with pytest.raises(RejectedInputError, match="COIN-M"):
        open_file(path, symbol="BTCUSDT", market="um")


UM_FILES = [
    ("ABC-1m-2025-01.csv", [KLINE_HEADER, LINEAR_KLINE]),
    ("ABC-trades-2025-01-01.csv", [UM_TRADES_HEADER, UM_TRADE]),
    ("ABC-trades-2025-01-01.csv", [UM_TRADE]),
    ("ABC-aggTrades-2025-01-01.csv.gz", [AGG_HEADER, AGG]),
    ("ABC-aggTrades-2025-01-01.zip", [AGG]),
]


@pytest.mark.parametrize(("name", "lines"), UM_FILES)
@pytest.mark.parametrize("options", [{}, {"symbol": "ABC"}])
def test_usd_m_files_need_their_market(
    tmp_path: Path, name: str, lines: list[str], options: dict[str, str]
) -> None:
    with pytest.raises(RejectedInputError, match=r"of a USD-M file.*give --market um"):
        opened(tmp_path, name, *lines, **options)


@pytest.mark.parametrize(("name", "lines"), UM_FILES)
@pytest.mark.parametrize(
    ("folder", "options", "symbol"),
    [
        ("", {"market": "um"}, "ABC.P"),
        ("", {"market": "spot"}, "ABC"),
        ("", {"symbol": "ABC.P"}, "ABC.P"),
        ("futures/um", {}, "ABC.P"),
        ("data/spot", {}, "ABC"),
    ],
)
def test_named_market_decides(
    tmp_path: Path,
    name: str,
    lines: list[str],
    folder: str,
    options: dict[str, str],
    symbol: str,
) -> None:
    assert opened(tmp_path / folder, name, *lines, **options).symbol == symbol


def test_parquet_with_the_columns_of_usd_m_needs_its_market(tmp_path: Path) -> None:
    path = tmp_path / "ABC-1m-2025-01.parquet"
    pl.DataFrame(
        [LINEAR_KLINE.split(",")], schema=KLINE_HEADER.split(","), orient="row"
    ).write_parquet(path)
    with pytest.raises(RejectedInputError, match="give --market um"):
        open_file(path)
    assert open_file(path, market="um").symbol == "ABC.P"


@pytest.mark.parametrize("rows", [[LINEAR_KLINE], ["x," + LINEAR_KLINE], ["1,2"], [""]])
def test_other_files_are_left_to_their_reader(tmp_path: Path, rows: list[str]) -> None:
    path = tmp_path / "ABC-1m-2025-01.csv"
    path.write_text("\n".join([LINEAR_KLINE, *rows]))
    assert open_file(path).symbol == "ABC"
