"""DuckDB, in an environment of its own, reads the archive's files as documented."""

from __future__ import annotations

import json
import re
import subprocess
from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from include.config import Settings
from include.domain.timeframes import to_us
from tests.integration.jobs.storage.raw_days import DAY, Connection, archive, fill, rows_of

pytestmark = pytest.mark.long  # needs the environment of the client libraries

ROOT = Path(__file__).parents[4]
PYTHON = ROOT / ".venv-clients" / "bin" / "python"


def query_files(settings: Settings, query: str) -> list[list[Any]]:
    """Rows of a query over files below ``archive/``."""
    if not PYTHON.exists():
        pytest.fail(f"no {PYTHON.relative_to(ROOT)}; run `make setup-clients`", pytrace=False)
    assert "'archive/" in query
    placed = query.replace("'archive/", f"'{settings.archive}/")
    done = subprocess.run(
        [PYTHON, "-I", Path(__file__).with_name("read_by_duckdb.py"), placed],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows: list[list[Any]] = json.loads(done.stdout)
    return rows


@pytest.fixture
def stored(raw_settings: Settings, jobs_connection: Connection) -> list[tuple[Any, ...]]:
    """Rows of the day that was archived."""
    fill(jobs_connection)
    rows = [row for row in rows_of(jobs_connection) if row[1] == DAY]
    archive(raw_settings)
    return rows


def test_every_row_is_read_exactly_in_key_order(
    raw_settings: Settings, stored: list[tuple[Any, ...]]
) -> None:
    rows = query_files(
        raw_settings,
        "SELECT symbol, day, agg_trade_id, price, quantity, first_trade_id, last_trade_id, "
        "epoch_us(trade_time), is_buyer_maker FROM 'archive/agg_trades/*/*.parquet'",
    )
    assert [
        (row[0], row[1], row[2], Decimal(row[3]), Decimal(row[4]), *row[5:]) for row in rows
    ] == [(*row[:1], str(row[1]), *row[2:7], to_us(row[7]), row[8]) for row in stored]


def test_types_are_exact_and_times_are_instants(
    raw_settings: Settings, stored: list[tuple[Any, ...]]
) -> None:
    assert stored
    types: dict[str, str] = {}
    for query in (
        "DESCRIBE SELECT * FROM 'archive/agg_trades/*/*.parquet'",
        "DESCRIBE SELECT * FROM 'archive/trades/*/*.parquet'",
        "DESCRIBE SELECT * FROM 'archive/book_tickers/*/*.parquet'",
    ):
        types |= {column: kind for column, kind, *_ in query_files(raw_settings, query)}
    amounts = {name: kind for name, kind in types.items() if re.search("price|quantity", name)}
    assert len(amounts) == 7
    assert set(amounts.values()) == {"DECIMAL(38,8)"}
    moments = ("trade_time", "event_time", "received_at")
    assert {types[name] for name in moments} == {"TIMESTAMP WITH TIME ZONE"}
    assert types["day"] == "DATE"


def test_documented_query_gives_the_turnover_of_a_day(
    raw_settings: Settings, stored: list[tuple[Any, ...]]
) -> None:
    (query,) = re.findall(
        r"```sql\n-- DuckDB\n(.+?);?\n```", (ROOT / "docs" / "storage.md").read_text(), re.DOTALL
    )
    rows = query_files(raw_settings, query)
    turnover: dict[str, Decimal] = defaultdict(Decimal)
    for row in stored:
        if row[0] == "BTCUSDT":
            turnover[str(row[1])] += row[3] * row[4]
    assert [(day, Decimal(total)) for day, total in rows] == sorted(turnover.items())
