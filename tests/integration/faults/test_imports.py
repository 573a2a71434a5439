"""Files from a dump site that does as it likes, imported by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from include.config import Settings
from include.domain.timeframes import DAY_US, to_us
from include.jobs.klines.backfill import backfill
from include.jobs.klines.repair import repair_minutes
from simulator.config import SimulatorConfig
from simulator.server import ExchangeThread
from tests.integration.faults.matrix_jobs import IMPORT
from tests.integration.faults.staging import (
    Afflict,
    assert_equal,
    assert_unharmed,
    minutes_of,
    read_rows,
    run_cli,
)

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
def config() -> SimulatorConfig:
    return SimulatorConfig(
        spot_symbols=(GOOD, *(case.symbol for case in CASES)),
        um_symbols=(),
        start=datetime(2026, 10, 1, tzinfo=UTC),
        clock_start=datetime(2026, 11, 20, 6, tzinfo=UTC),
    )


@pytest.fixture
def fetch(exchange: ExchangeThread, tmp_path: Path) -> Callable[[str], Path]:
    """Download without comparing the checksum, as a person would."""

    def fetched(path: str) -> Path:
        answer = httpx.get(f"{exchange.dump_url}/{path}", timeout=30, trust_env=False)
        file = tmp_path / path.rpartition("/")[2]
        file.write_bytes(answer.raise_for_status().content)
        return file

    return fetched


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.fault["kind"])
def test_file_is_loaded_or_refused_completely(
    case: Case,
    exchange: ExchangeThread,
    settings: Settings,
    database_url: str,
    add_faults: Afflict,
    fetch: Callable[[str], Path],
) -> None:
    start = DAY if case.period.count("-") == 2 else OCTOBER
    repair_minutes(
        settings=settings, symbol=case.symbol, start_us=start, end_us=start + DAY_US // 24
    )
    before = read_rows(database_url)
    (identity,) = add_faults({"files": f"*/{case.path.rpartition('/')[2]}", **case.fault})
    bad = fetch(case.path)
    exchange.faults.remove(identity)
    good = fetch(f"data/spot/daily/klines/{GOOD}/1m/{GOOD}-1m-2026-11-18.zip")
    done = run_cli("import", str(bad), str(good), settings=settings)
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
