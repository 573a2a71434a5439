"""Files from a dump site that does as it likes, imported by hand."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from include.config import Settings
from include.domain.timeframes import DAY_US, to_us
from include.jobs.backfill import backfill
from include.jobs.repair import repair_minutes
from simulator.config import SimulatorConfig
from simulator.server import ExchangeThread
from tests.integration.faults.matrix_jobs import IMPORT
from tests.integration.faults.staging import assert_equal, assert_unharmed, minutes_of, read_rows

ROOT = Path(__file__).parents[3]
DAY = to_us(datetime(2026, 11, 18, tzinfo=UTC))
OCTOBER = to_us(datetime(2026, 10, 1, tzinfo=UTC))
GOOD = "GOODUSDT"


@dataclass(frozen=True)
class Case:
    """A fault, the file it hits, and the rows of it that are loaded."""

    fault: dict[str, Any]
    symbol: str
    rows: int
    period: str = "2026-11-18"

    @property
    def path(self) -> str:
        cadence = "daily" if self.period.count("-") == 2 else "monthly"
        name = f"{self.symbol}-1m-{self.period}.zip"
        return f"data/spot/{cadence}/klines/{self.symbol}/1m/{name}"


CASES = [
    Case({"kind": "corrupt_zip"}, "AAAUSDT", 0),
    Case({"kind": "truncated_zip"}, "AABUSDT", 0),
    Case({"kind": "truncated_day", "rows": 100}, "AACUSDT", 1_340),
    Case({"kind": "reissued", "at": "+3600s"}, "AADUSDT", 1_440),
    Case({"kind": "monthly_differs"}, "AAEUSDT", 31 * 1_440, "2026-10"),
]


@pytest.fixture(scope="module")
def exchange() -> Iterator[ExchangeThread]:
    config = SimulatorConfig(
        spot_symbols=(GOOD, *(case.symbol for case in CASES)),
        um_symbols=(),
        start=datetime(2026, 10, 1, tzinfo=UTC),
        clock_start=datetime(2026, 11, 20, 6, tzinfo=UTC),
    )
    with ExchangeThread(config) as running:
        yield running


@pytest.fixture
def fetch(exchange: ExchangeThread, tmp_path: Path) -> Callable[[str], Path]:
    """Downloads as a person would, without a look at the checksum."""

    def fetched(path: str) -> Path:
        answer = httpx.get(f"{exchange.dump_url}/{path}", timeout=30, trust_env=False)
        file = tmp_path / path.rpartition("/")[2]
        file.write_bytes(answer.raise_for_status().content)
        return file

    return fetched


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.fault["kind"])
def test_what_a_file_holds_is_loaded_or_it_is_refused_as_a_whole(
    case: Case,
    exchange: ExchangeThread,
    database_url: str,
    fetch: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    settings = Settings(
        database_url=database_url,
        binance_rest_url=exchange.spot_rest_url,
        binance_dump_url=exchange.dump_url,
        binance_dump_list_url=exchange.dump_url,
        candelabra_home=tmp_path / "home",
    )
    start = DAY if case.period.count("-") == 2 else OCTOBER
    repair_minutes(
        settings=settings, symbol=case.symbol, start_us=start, end_us=start + DAY_US // 24
    )
    before = read_rows(database_url)
    (identity,) = exchange.faults.add(
        [{"files": f"*/{case.path.rpartition('/')[2]}", **case.fault}]
    )
    try:
        bad = fetch(case.path)
    finally:
        exchange.faults.remove(identity)
    good = fetch(f"data/spot/daily/klines/{GOOD}/1m/{GOOD}-1m-2026-11-18.zip")
    done = subprocess.run(
        [sys.executable, "-m", "include.cli", "import", str(bad), str(good)],
        env={
            "PATH": os.environ["PATH"],
            "DATABASE_URL": database_url,
            "CANDELABRA_HOME": str(tmp_path / "home"),
            "PYTHONPATH": str(ROOT),
            "COLUMNS": "200",
        },
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    cell = IMPORT[case.fault["kind"]]
    assert done.returncode == cell.exit_code, done.stderr
    assert "Traceback" not in done.stderr
    if cell.says is not None:
        assert f"{bad.name} {cell.says}" in done.stderr
    rows = read_rows(database_url)
    assert_unharmed(before, rows)
    assert_equal(exchange, rows, GOOD, DAY, DAY + DAY_US)
    assert len(minutes_of(rows, case.symbol)) == max(case.rows, len(before))
    end = DAY + DAY_US if start == DAY else start + DAY_US
    summary = backfill(settings=settings, symbols=case.symbol, market="spot", start=start, end=end)
    assert summary.failed == ()
    assert_equal(exchange, read_rows(database_url), case.symbol, start, end)
