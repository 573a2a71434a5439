"""Every recorded file of minutes is loaded as it is, in either unit, and REST agrees with it."""

from __future__ import annotations

import gzip
import json
import zipfile
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import psycopg
import pytest

from include.config import Settings
from include.domain.candles import Candle, CandleCandidate, Source, Status
from include.domain.timeframes import to_us
from include.errors import RejectedInputError
from include.jobs.files.imports import import_file
from include.store.candles.merging import merge_candidates
from include.store.candles.minutes import read_candles

pytestmark = pytest.mark.recorded

END_US = 4_000_000_000_000_000
KLINES = {
    "dump-spot-1m-20200101/BTCUSDT-1m-2020-01-01.zip": ("BTCUSDT", 1_440),
    "dump-spot-1m-20200101/BTCUSDT-1m-2020-01-02.zip": ("BTCUSDT", 1_440),
    "dump-um-1m-5m-near-2025/NEARUSDT-1m-2025-02.zip": ("NEARUSDT.P", 28 * 1_440),
    "dump-um-1m-bulk/FILUSDT-1m-2024-04.zip": ("FILUSDT.P", 30 * 1_440),
    "dump-um-1m-bulk/FILUSDT-1m-2024-06.zip": ("FILUSDT.P", 30 * 1_440),
    "dump-um-1m-bulk/FILUSDT-1m-2025-02.zip": ("FILUSDT.P", 28 * 1_440),
    "ws-usdm-markprice-20230404/BTCUSDT-1m-2023-04.excerpt-20230404T2358-20230405T0007.csv": (
        "BTCUSDT.P",
        10,
    ),
    "ws-usdm-vs-klines-20240808/BTCUSDT-1m-2024-08.excerpt-20240808T2354-20240809T0005.csv": (
        "BTCUSDT.P",
        12,
    ),
}
"""All recorded files of 1m klines in the dump site's columns, their symbols and rows."""

LONG = ("dump-um-1m-bulk/FILUSDT-1m-2024-06", "dump-um-1m-bulk/FILUSDT-1m-2025-02")
"""Two of four months; the others prove the same columns and empty minutes in `make test`."""


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    return Settings(database_url=database_url, candelabra_home=tmp_path / "home")


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True) as opened:
        opened.execute("SET timezone = 'UTC'")
        yield opened


def lines_of(path: Path) -> list[list[str]]:
    """Rows of a recorded file, read without our own parser."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            text = archive.read(archive.namelist()[0]).decode()
    else:
        text = path.read_text()
    rows = [line.split(",") for line in text.split()]
    return rows[1:] if not rows[0][0].isdigit() else rows


def test_every_recorded_minute_file_is_tested(recorded_data: Path) -> None:
    found = {
        path.relative_to(recorded_data).as_posix()
        for path in recorded_data.glob("*/*-1m-*")
        if path.suffix in (".zip", ".csv")
    }
    assert found == KLINES.keys()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.long if name.startswith(LONG) else ())
        for name in KLINES
    ],
)
def test_recorded_file_is_stored_unchanged_and_once(
    recorded_data: Path, settings: Settings, connection: psycopg.Connection[Any], name: str
) -> None:
    symbol, rows = KLINES[name]
    path = recorded_data / name
    first = import_file(settings=settings, path=path, symbol=symbol)
    assert (first.rows, first.rejected, first.merged.inserted) == (rows, 0, rows)
    second = import_file(settings=settings, path=path, symbol=symbol)
    assert (second.merged.inserted, second.merged.changed, second.merged.unchanged) == (0, 0, rows)
    theirs = lines_of(path)
    stored = read_candles(connection, symbol, 0, END_US)
    assert [one.open_time_us for one in stored] == [int(row[0]) * 1000 for row in theirs]
    assert [one.values for one in stored] == [values(row) for row in theirs]


def values(row: list[Any]) -> tuple[Decimal | int, ...]:
    """The nine values of a kline row of the exchange."""
    return candle("X", row).values


def candle(symbol: str, row: list[Any], *, unit_us: int = 1000) -> Candle:
    prices = (Decimal(text) for text in row[1:6])
    return Candle(
        symbol, int(row[0]) * unit_us, *prices, Decimal(row[7]), int(row[8]), Decimal(row[9]),
        Decimal(row[10]),
    )  # fmt: skip


@pytest.fixture
def three_days(recorded_data: Path) -> list[list[Any]]:
    """REST rows of three days of spot BTCUSDT, times in ms."""
    with gzip.open(recorded_data / "rest-1m-20251029" / "BTCUSDT_1m.csv.gz") as file:
        raw = pl.read_csv(file.read(), infer_schema=False)
    rows = []
    for row in raw.rows():
        opened, closed = (to_us(datetime.fromisoformat(row[at])) // 1000 for at in (0, 6))
        rows.append([str(opened), *row[1:6], str(closed), *row[7:12]])
    return rows


def test_rest_rows_and_their_files_in_ms_and_us_are_the_same_minutes(
    three_days: list[list[Any]], settings: Settings, connection: psycopg.Connection[Any],
    tmp_path: Path,
) -> None:  # fmt: skip
    in_ms = tmp_path / "ms.csv"
    in_ms.write_text("\n".join(",".join(row) for row in three_days))
    in_us = tmp_path / "us.csv"
    in_us.write_text(
        "\n".join(
            ",".join([f"{row[0]}000", *row[1:6], f"{row[6]}999", *row[7:]]) for row in three_days
        )
    )
    total = len(three_days)
    summary = import_file(settings=settings, path=in_ms, symbol="BTCUSDT")
    assert (summary.rows, summary.rejected, summary.merged.inserted) == (total, 0, total)
    twin = import_file(settings=settings, path=in_us, symbol="BTCUSDT")
    assert (twin.rows, twin.rejected, twin.merged.unchanged) == (total, 0, total)
    units = connection.execute("SELECT path, time_unit FROM ops.dump_files ORDER BY 1").fetchall()
    assert units == [("BTCUSDT/ms.csv", "ms"), ("BTCUSDT/us.csv", "us")]

    rest = [
        CandleCandidate(candle("BTCUSDT", row), Status.VERIFIED, Source.REST, 1_800_000_000_000_000)
        for row in three_days
    ]
    merge_candidates(connection, rest)
    rows = connection.execute(
        "SELECT DISTINCT source, status, revision FROM market.candles_1m"
    ).fetchall()
    assert rows == [("rest", "verified", 0)]
    assert connection.execute("SELECT count(*) FROM ops.discrepancies").fetchone() == (0,)


def test_hours_on_both_sides_of_the_change_of_unit_equal_the_rest_rows(
    recorded_data: Path,
) -> None:
    with zipfile.ZipFile(recorded_data / "rest-klines-12-intervals" / "BTCUSDT.zip") as archive:
        theirs = {
            row[0] * 1000: values(row)
            for name in archive.namelist()
            if name.startswith("BTCUSDT/1h/") and name.endswith(".json")
            for row in json.loads(archive.read(name))
        }
    folder = recorded_data / "dump-spot-1h-ms-to-us"
    before = lines_of(folder / "BTCUSDT-1h-2024-12.zip")
    after = lines_of(folder / "BTCUSDT-1h-2025-01.zip")
    assert ({len(row[0]) for row in before}, {len(row[0]) for row in after}) == ({13}, {16})
    ours = [candle("BTCUSDT", row) for row in before]
    ours += [candle("BTCUSDT", row, unit_us=1) for row in after]
    assert len(ours) == 62 * 24
    assert {one.open_time_us for one in ours} <= theirs.keys()
    assert [one for one in ours if one.values != theirs[one.open_time_us]] == []


@pytest.mark.parametrize(
    "name",
    [
        "dump-spot-1h-ms-to-us/BTCUSDT-1h-2024-12.zip",
        "dump-spot-1h-ms-to-us/BTCUSDT-1h-2025-01.zip",
        "dump-um-1m-5m-near-2025/NEARUSDT-5m-2025-02.zip",
    ],
)
def test_coarser_files_are_refused_by_interval(
    recorded_data: Path, settings: Settings, name: str
) -> None:
    with pytest.raises(RejectedInputError, match=r"holds (1h|5m); 1m klines"):
        import_file(settings=settings, path=recorded_data / name)


OUTAGES = {
    "2018-02-08 02:00": "2018-02-09 10:00",
    "2018-06-26 02:00": "2018-06-26 12:00",
    "2018-07-04 02:00": "2018-07-04 08:00",
    "2018-11-14 02:00": "2018-11-14 08:00",
    "2019-05-15 04:00": "2019-05-15 12:00",
}
"""Recorded stretches without a bar of two hours: from the first missing one to the next bar."""


@pytest.mark.parametrize(("begin", "end"), OUTAGES.items())
def test_outage_has_no_bar_and_shortens_the_one_before(
    recorded_data: Path, begin: str, end: str
) -> None:
    first_ms, next_ms = (
        to_us(datetime.fromisoformat(f"{moment}+00:00")) // 1000 for moment in (begin, end)
    )
    hour_ms = 3_600_000
    with zipfile.ZipFile(recorded_data / "rest-klines-12-intervals" / "BTCUSDT.zip") as archive:
        for hours in (2, 4, 6, 8, 12):
            rows = {
                row[0]: row
                for name in archive.namelist()
                if name.startswith(f"BTCUSDT/{hours}h/") and name.endswith(".json")
                for row in json.loads(archive.read(name))
            }
            inside = [at for at in rows if at >= first_ms and at + hours * hour_ms <= next_ms]
            assert inside == [], f"{hours}h"
            if hours == 2:
                assert next_ms in rows
                assert first_ms - 2 * hour_ms in rows
            # Minutes of the outage belong to no bar: the bars around it end or begin beside it.
            for at in range(first_ms - first_ms % (hours * hour_ms), next_ms, hours * hour_ms):
                told = rows.get(at)
                if told is not None and at < first_ms and at + hours * hour_ms <= next_ms:
                    assert told[6] < first_ms, f"{hours}h"
