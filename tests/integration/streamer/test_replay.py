"""Recorded frames of the real exchange, replayed into the streamer and PostgreSQL."""

from __future__ import annotations

import asyncio
import csv
import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest

from include.domain.timeframes import MINUTE_US, to_us
from include.jobs.dbt_env import DBT_PROJECT, dbt_environment
from simulator.config import SimulatorConfig
from simulator.server import Exchange
from tests.integration.streamer.harness import (
    minutes_of,
    rows_of,
    settings_for,
    streaming,
    wait_for_rows,
)

pytestmark = pytest.mark.recorded
EVENING = to_us(datetime(2024, 8, 8, 23, 54, tzinfo=UTC))
OFFICIAL = ("open", "high", "low", "close", "volume", "quote_volume", "trade_count")
TAKER = ("taker_buy_volume", "taker_buy_quote_volume")


@dataclass(frozen=True)
class Evening:
    """A recording of USD-M trades over midnight, with the exchange's own minutes."""

    folder: str
    files: tuple[str, ...]
    official: str
    first: datetime
    """The minute in which the recording begins."""
    whole: int
    """Minutes after it that are recorded from their first to their last trade."""


EVENINGS = (
    Evening(
        "ws-usdm-vs-klines-20240808",
        ("btcusdt_20240808.gz",),
        "BTCUSDT-1m-2024-08.excerpt-20240808T2354-20240809T0005.csv",
        datetime(2024, 8, 8, 23, 54, tzinfo=UTC),
        5,
    ),
    # One trade is a fill of the insurance fund, far above its minute's high.
    Evening(
        "ws-usdm-markprice-20230404",
        ("btcusdt_20230404.dat.gz", "btcusdt_20230405.dat.gz"),
        "BTCUSDT-1m-2023-04.excerpt-20230404T2358-20230405T0007.csv",
        datetime(2023, 4, 4, 23, 58, tzinfo=UTC),
        7,
    ),
)


@pytest.mark.parametrize("evening", EVENINGS, ids=lambda one: one.folder)
async def test_futures_frames_give_the_official_minutes(
    database_url: str, recorded_data: Path, evening: Evening
) -> None:
    folder = recorded_data / evening.folder
    files = tuple(folder / name for name in evening.files)
    config = SimulatorConfig(replay_files=files, replay_market="um", replay_speed=None)
    async with Exchange(config) as exchange:
        settings = settings_for(exchange, database_url)
        async with streaming(settings, "BTCUSDT.P", trade_stream="trade", klines=False):
            await wait_for_rows(
                database_url, lambda rows: len(minutes_of(rows, "BTCUSDT.P")) > evening.whole
            )
        rows = await rows_of(database_url)
    with (folder / evening.official).open() as file:
        official = {int(row["open_time"]) * 1000: row for row in csv.DictReader(file)}
    first_us = to_us(evening.first)
    assert rows["BTCUSDT.P", first_us]["status"] == "partial"
    for number in range(1, evening.whole + 1):
        minute = first_us + number * MINUTE_US
        row, theirs = rows["BTCUSDT.P", minute], official[minute]
        names = ("open", "high", "low", "close", "volume", "quote_volume", "count")
        expected = [theirs[name] for name in names]
        expected += [theirs["taker_buy_volume"], theirs["taker_buy_quote_volume"]]
        ours = [row[name] for name in (*OFFICIAL, *TAKER)]
        assert ours == [Decimal(value) for value in expected], minute
        assert row["status"] in {"unconfirmed", "verified"}


@pytest.mark.long
async def test_spot_frames_give_the_two_5m_candles_through_dbt(
    database_url: str, recorded_data: Path, tmp_path: Path
) -> None:
    folder = recorded_data / "ws-spot-20240808"
    files = (folder / "btcusdt_20240808.gz", folder / "btcusdt_20240809.gz")
    config = SimulatorConfig(replay_files=files, replay_market="spot", replay_speed=None)
    async with Exchange(config) as exchange:
        settings = settings_for(exchange, database_url)
        async with streaming(settings, "BTCUSDT", trade_stream="trade", klines=False):
            await wait_for_rows(database_url, lambda rows: len(minutes_of(rows, "BTCUSDT")) >= 11)
        rows = await rows_of(database_url)
    assert rows["BTCUSDT", EVENING]["status"] == "partial"
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "dbt.cli.main", "run", "--select", "+candles_5m"],
        cwd=DBT_PROJECT,
        env={**os.environ, **dbt_environment(database_url, home=tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    with (folder / "BTCUSDT_5m.excerpt-20240808T2350-20240809T0005.csv").open() as file:
        official = {row["timestamp"]: row for row in csv.DictReader(file)}
    with psycopg.connect(database_url) as connection:
        for moment in ("2024-08-08 23:55:00", "2024-08-09 00:00:00"):
            bar = connection.execute(
                "SELECT open, high, low, close, volume FROM marts.candles_5m "
                "WHERE symbol = 'BTCUSDT' AND open_time = %s::timestamptz",
                (moment + "+00",),
            ).fetchone()
            names = ("open", "high", "low", "close", "volume")
            assert bar == tuple(Decimal(official[moment][name]) for name in names)
