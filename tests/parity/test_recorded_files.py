"""Recorded dump files of the exchange are read whole, and imported as they are."""

from __future__ import annotations

import hashlib
import json
import zipfile
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest

from include.binance.files.dumps import read_klines
from include.binance.files.kline_files import KLINES
from include.config import Settings
from include.domain.candles import Candle
from include.domain.columns.candles import to_candles
from include.domain.rollup import roll_up
from include.domain.timeframes import timeframe
from include.jobs.files.imports import import_file
from include.jobs.klines.dump_loading import window_of
from include.store.candles.minutes import read_candles

pytestmark = pytest.mark.recorded

DUMPS = {
    "dump-spot-1m-20200101/BTCUSDT-1m-2020-01-01.zip": (1_440, "ms"),
    "dump-spot-1m-20200101/BTCUSDT-1m-2020-01-02.zip": (1_440, "ms"),
    "dump-um-1m-5m-near-2025/NEARUSDT-1m-2025-02.zip": (28 * 1_440, "ms"),
    "dump-um-1m-bulk/FILUSDT-1m-2024-04.zip": (30 * 1_440, "ms"),
    "dump-um-1m-bulk/FILUSDT-1m-2024-06.zip": (30 * 1_440, "ms"),
    "dump-um-1m-bulk/FILUSDT-1m-2025-02.zip": (28 * 1_440, "ms"),
}


@pytest.mark.parametrize(("name", "expected"), DUMPS.items())
def test_no_row_of_a_recorded_dump_is_rejected(
    recorded_data: Path, name: str, expected: tuple[int, str]
) -> None:
    blocks = list(read_klines(recorded_data / name, "X", window=window_of(name)))
    assert [one for block in blocks for one in block.rejections] == []
    assert (sum(block.candles.height for block in blocks), blocks[0].time_unit) == expected


def test_recorded_dump_is_read_unchanged(recorded_data: Path) -> None:
    path = recorded_data / "dump-spot-1m-20200101" / "BTCUSDT-1m-2020-01-01.zip"
    candles = to_candles(next(iter(read_klines(path, "BTCUSDT"))).candles)
    with zipfile.ZipFile(path) as archive:
        lines = archive.read(archive.namelist()[0]).decode().split()
    assert len(lines) == len(candles)
    for line, candle in zip(lines, candles, strict=True):
        field = dict(zip(KLINES.columns, line.split(","), strict=True))
        assert candle.open_time_us == int(field["open_time"]) * 1000
        assert candle.trade_count == int(field["trade_count"])
        for name in ("open", "high", "low", "close", "volume", "taker_buy_quote_volume"):
            assert getattr(candle, name) == Decimal(field[name])


def test_recorded_checksum_files_match_and_have_no_newline(recorded_data: Path) -> None:
    for path in (recorded_data / "dump-spot-1m-20200101").glob("*.zip"):
        text = path.with_name(f"{path.name}.CHECKSUM").read_text()
        assert not text.endswith("\n")
        assert text.split()[0] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_hourly_files_are_rejected_row_by_row_in_both_units(recorded_data: Path) -> None:
    for month, unit in (("2024-12", "ms"), ("2025-01", "us")):
        path = recorded_data / "dump-spot-1h-ms-to-us" / f"BTCUSDT-1h-{month}.zip"
        block = next(iter(read_klines(path, "BTCUSDT")))
        assert (block.candles.height, block.time_unit) == (0, unit)
        assert {one.reason for one in block.rejections} == {
            "close_time is not within the minute: not a 1m kline"
        }


def test_two_imported_days_roll_up_to_the_exchanges_day_bars(
    recorded_data: Path, database_url: str, tmp_path: Path
) -> None:
    settings = Settings(database_url=database_url, candelabra_home=tmp_path)
    for day in (1, 2):
        path = recorded_data / "dump-spot-1m-20200101" / f"BTCUSDT-1m-2020-01-0{day}.zip"
        summary = import_file(settings=settings, path=path)
        assert (summary.rows, summary.rejected, summary.merged.inserted) == (1_440, 0, 1_440)
    with psycopg.connect(database_url) as connection:
        stored = read_candles(connection, "BTCUSDT", 0, 2_000_000_000_000_000)
    bars = roll_up(stored, timeframe("1d"))
    with zipfile.ZipFile(recorded_data / "rest-klines-12-intervals" / "BTCUSDT.zip") as archive:
        rows = {
            row[0] * 1000: row for row in json.loads(archive.read("BTCUSDT/1d/2020-01-01.json"))
        }
    assert [bar.values for bar in bars] == [_values(rows[bar.open_time_us]) for bar in bars]
    assert len(bars) == 2


def _values(row: list) -> tuple[Decimal | int, ...]:  # type: ignore[type-arg]
    candle = Candle(
        "BTCUSDT", row[0], *map(Decimal, row[1:6]), Decimal(row[7]), row[8], Decimal(row[9]),
        Decimal(row[10]),
    )  # fmt: skip
    return candle.values
