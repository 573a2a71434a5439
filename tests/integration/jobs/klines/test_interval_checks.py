"""Stored minutes are held to the exchange's dump files of other intervals."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from include.binance.files.dumps import read_klines
from include.config import Settings
from include.domain.timeframes import DAY_US, TIMEFRAMES, from_us, to_us
from include.errors import PermanentError
from include.jobs.files.imports import import_file
from include.jobs.klines.backfill import backfill
from include.jobs.klines.interval_checks import compare_bars, compare_interval
from include.store.ledgers.files import find_dump_file
from simulator.dumps.faults import AlterRows, CorruptZip, DumpRule
from simulator.server import ExchangeThread

ROOT = Path(__file__).parents[4]
DAY = to_us(datetime(2026, 11, 17, tzinfo=UTC))
END = DAY + 3 * DAY_US
HOURLY = "data/spot/daily/klines/COSUSDT/1h/COSUSDT-1h-2026-11-18.zip"


@pytest.fixture(autouse=True)
def _heal(exchange: ExchangeThread) -> Iterator[None]:
    yield
    exchange.dump_faults.clear()


@pytest.fixture
def stored(settings: Settings) -> Settings:
    """Three days of minutes are stored."""
    backfill(settings=settings, symbols="COSUSDT", market="spot", start=DAY, end=END)
    return settings


def compare(settings: Settings, interval: str, start: int = DAY, end: int = END) -> list[object]:
    return [
        (one.verdict, one.agreeing, one.incomplete, len(one.differences))
        for one in compare_interval(
            settings=settings, symbols="COSUSDT", market="spot", interval=interval,
            start=start, end=end,
        )
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("interval", "bars"), [("3m", 480), ("5m", 288), ("1h", 24), ("12h", 2), ("1d", 1)]
)
def test_files_of_other_intervals_agree_and_are_not_stored(
    stored: Settings, connection: psycopg.Connection, interval: str, bars: int
) -> None:
    before = connection.execute("SELECT count(*), max(revision) FROM market.candles_1m").fetchone()
    assert compare(stored, interval) == [("agrees", bars, 0, 0)] * 3
    after = connection.execute("SELECT count(*), max(revision) FROM market.candles_1m").fetchone()
    assert after == before
    kinds = connection.execute(
        "SELECT kind, verdict, count(*) FROM ops.dump_files WHERE path LIKE %s GROUP BY 1, 2",
        (f"%/{interval}/%",),
    ).fetchall()
    assert kinds == [(f"klines_{interval}", "agrees", 3)]


def test_differing_bar_is_reported_with_both_values(
    stored: Settings, exchange: ExchangeThread, connection: psycopg.Connection
) -> None:
    exchange.dump_faults.add(DumpRule(effect=AlterRows(rows=2), path=HOURLY))
    assert [one[0] for one in compare(stored, "1h")] == ["agrees", "differs", "agrees"]
    altered = exchange.call(exchange.site.altered_rows, HOURLY)
    expected = {from_us(int(row.true.split(",")[0])).isoformat() for row in altered}
    file = find_dump_file(connection, HOURLY)
    assert file is not None
    assert file.verdict == "differs"
    assert file.detail["agreeing"] == 24 - len(expected)
    told = {one["open_time"]: one["values"] for one in file.detail["differences"]}  # type: ignore[attr-defined]
    assert told.keys() == expected
    for values in told.values():
        assert values
        assert all(one["stored"] != one["published"] for one in values.values())
    exchange.dump_faults.clear()
    assert [one[0] for one in compare(stored, "1h")] == ["agrees"] * 3


def test_bars_with_missing_minutes_are_incomplete_not_different(
    stored: Settings, connection: psycopg.Connection
) -> None:
    connection.execute(
        "DELETE FROM market.candles_1m "
        "WHERE open_time >= '2026-11-18 02:30Z' AND open_time < '2026-11-18 04:00Z'"
    )
    (found,) = compare(stored, "1h", DAY + DAY_US, DAY + 2 * DAY_US)
    verdict, agreeing, incomplete, differing = found  # type: ignore[misc]
    assert (verdict, differing, agreeing + incomplete) == ("incomplete", 0, 24)
    assert 1 <= incomplete <= 2


def test_wrong_stored_minute_is_found(stored: Settings, connection: psycopg.Connection) -> None:
    connection.execute(
        "UPDATE market.candles_1m SET trade_count = trade_count + 1 WHERE open_time = ("
        "SELECT min(open_time) FROM market.candles_1m "
        "WHERE trade_count > 0 AND open_time >= '2026-11-18 00:00Z')"
    )
    (check,) = compare_interval(
        settings=stored, symbols="COSUSDT", market="spot", interval="1d",
        start=DAY + DAY_US, end=DAY + 2 * DAY_US,
    )  # fmt: skip
    (difference,) = check.differences
    assert difference.open_time_us == DAY + DAY_US
    ((ours, theirs),) = difference.values.values()
    assert difference.values.keys() == {"trade_count"}
    assert int(ours) == int(theirs) + 1


def test_unusable_file_is_recorded(
    stored: Settings, exchange: ExchangeThread, connection: psycopg.Connection
) -> None:
    exchange.dump_faults.add(DumpRule(effect=CorruptZip(checksum_fits=True), path=HOURLY))
    assert [one[0] for one in compare(stored, "1h")] == ["agrees", "unusable", "agrees"]
    file = find_dump_file(connection, HOURLY)
    assert file is not None
    assert (file.verdict, file.kind) == ("corrupt", "klines_1h")


def test_unknown_interval_is_refused(settings: Settings) -> None:
    for interval in ("1m", "7m"):
        with pytest.raises(PermanentError, match="3m, 5m"):
            compare(settings, interval)


def test_command_shows_verdicts_and_exits_with_1_for_a_difference(
    stored: Settings, exchange: ExchangeThread, database_url: str, tmp_path: Path
) -> None:
    def typed() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "cli", "compare", "--interval", "1h",
             "--symbols", "COSUSDT", "--from", "2026-11-18", "--to", "2026-11-19"],
            env={
                "PATH": os.environ["PATH"], "DATABASE_URL": database_url, "COLUMNS": "120",
                "BINANCE_DUMP_URL": exchange.dump_url, "BINANCE_DUMP_LIST_URL": exchange.dump_url,
                "CANDELABRA_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT),
            },
            cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    fine = typed()
    assert (fine.returncode, "agrees" in fine.stdout) == (0, True), fine.stderr
    exchange.dump_faults.add(DumpRule(effect=AlterRows(rows=1), path=HOURLY))
    differing = typed()
    assert (differing.returncode, "≠" in differing.stdout) == (1, True), differing.stderr


@pytest.mark.recorded
def test_recorded_bars_of_five_minutes_agree_with_the_recorded_minutes(
    settings: Settings, connection: psycopg.Connection, recorded_data: Path
) -> None:
    folder = recorded_data / "dump-um-1m-5m-near-2025"
    import_file(settings=settings, path=folder / "NEARUSDT-1m-2025-02.zip", symbol="NEARUSDT.P")
    window = (
        to_us(datetime(2025, 2, 1, tzinfo=UTC)),
        to_us(datetime(2025, 3, 1, tzinfo=UTC)),
    )
    frame = TIMEFRAMES["5m"]
    (block,) = read_klines(
        folder / "NEARUSDT-5m-2025-02.zip", "NEARUSDT.P", window=window, interval=frame
    )
    assert block.rejections == []
    check = compare_bars(connection, "NEARUSDT.P", frame, block.candles, window)
    assert (check.verdict, check.agreeing) == ("agrees", 28 * 288)
