"""Recorded trades, written like dump files, aggregate to the exchange's candles."""

from __future__ import annotations

import gzip
import zipfile
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from include.binance.files.trade_files import TradeReader
from include.binance.streams.messages import Trade, decode, microseconds
from include.domain.columns.candles import to_candles

pytestmark = pytest.mark.recorded

HEADER = "id,price,qty,quote_qty,time,is_buyer_maker"


def recorded(file: Path) -> list[Trade]:
    found = []
    with gzip.open(file, "rt") as lines:
        for line in lines:
            if '"btcusdt@trade"' in line:
                trade = decode(line.split(" ", 1)[1].strip())
                assert isinstance(trade, Trade)
                found.append(trade)
    return sorted(found, key=lambda one: one.id)


def write_dump(path: Path, trades: list[Trade], *, unit: str, header: str, spot: bool) -> Path:
    lines = [header] if header else []
    for one in trades:
        at = microseconds(one.trade_time) // (1000 if unit == "ms" else 1)
        fields = [one.id, one.price, one.quantity, one.price * one.quantity, at]
        flags = [str(one.is_buyer_maker), "True"] if spot else [str(one.is_buyer_maker).lower()]
        lines.append(",".join(map(str, [*fields, *flags])))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(path.with_suffix(".csv").name, "\n".join(lines) + "\n")
    return path


def aggregated(path: Path, symbol: str) -> tuple[pl.DataFrame, str | None]:
    blocks = list(TradeReader(symbol).read_file(path))
    assert [one for block in blocks for one in block.rejections] == []
    frames = [frame for block in blocks for frame in (block.whole, block.partial)]
    return pl.concat(frames).sort("open_time"), blocks[0].time_unit


def test_futures_file_in_ms_or_us_gives_the_official_minutes(
    recorded_data: Path, tmp_path: Path
) -> None:
    folder = recorded_data / "ws-usdm-vs-klines-20240808"
    trades = recorded(folder / "btcusdt_20240808.gz")
    files = {
        unit: write_dump(tmp_path / f"{unit}.zip", trades, unit=unit, header=header, spot=False)
        for unit, header in (("ms", HEADER), ("us", ""))
    }
    (in_ms, ms), (in_us, us) = (aggregated(file, "BTCUSDT.P") for file in files.values())
    assert (ms, us) == ("ms", "us")
    assert in_ms.equals(in_us)
    official = folder / "BTCUSDT-1m-2024-08.excerpt-20240808T2354-20240809T0005.csv"
    rows = [line.split(",") for line in official.read_text().splitlines()[1:]]
    theirs = {
        int(row[0]) * 1000: tuple(Decimal(row[column]) for column in (1, 2, 3, 4, 5, 7, 8, 9, 10))
        for row in rows
    }
    whole = to_candles(in_ms)[1:6]
    assert len(whole) == 5
    for candle in whole:
        assert candle.values == theirs[candle.open_time_us]


def test_spot_file_and_its_twin_agree_and_prove_all_minutes_except_their_ends(
    recorded_data: Path, tmp_path: Path
) -> None:
    trades = recorded(recorded_data / "ws-spot-20240808" / "btcusdt_20240808.gz")
    found = {}
    for unit in ("ms", "us"):
        path = write_dump(tmp_path / f"{unit}.zip", trades, unit=unit, header="", spot=True)
        reader = TradeReader("BTCUSDT")
        blocks = list(reader.read_file(path))
        assert [one for block in blocks for one in block.rejections] == []
        assert {block.time_unit for block in blocks} == {unit}
        found[unit] = pl.concat([block.whole for block in blocks])
        partial = pl.concat([block.partial for block in blocks])
        assert partial.height == 2  # the trades beside the file are unknown
        assert sum(block.trades for block in blocks) == len(trades)
    assert found["ms"].equals(found["us"])
    assert found["ms"].height >= 4
