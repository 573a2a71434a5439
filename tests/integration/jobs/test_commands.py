"""The commands plan, load and import, and tell wrong input in a sentence and an exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from include.domain.candles import Candle
from include.domain.timeframes import MINUTE_US, to_us
from include.store.candles import read_candles
from simulator.server import ExchangeThread

Oracle = Callable[[str, int, int], list[Candle]]
Run = Callable[..., subprocess.CompletedProcess[str]]
ROOT = Path(__file__).parents[3]
DAY = to_us(datetime(2026, 11, 18, tzinfo=UTC))


@pytest.fixture
def candelabra(exchange: ExchangeThread, database_url: str, tmp_path: Path) -> Run:
    """Runs the command line as a person does."""
    environment = {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": database_url,
        "BINANCE_REST_URL": exchange.spot_rest_url,
        "BINANCE_UM_REST_URL": exchange.um_rest_url,
        "BINANCE_DUMP_URL": exchange.dump_url,
        "BINANCE_DUMP_LIST_URL": exchange.dump_url,
        "CANDELABRA_HOME": str(tmp_path / "home"),
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "200",
    }

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "include.cli", *arguments],
            env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    return run


def test_a_plan_is_shown_and_loads_nothing(candelabra: Run, connection: psycopg.Connection) -> None:
    done = candelabra(
        "backfill",
        "--symbols",
        "COSUSDT",
        "--from",
        "2026-11-18",
        "--to",
        "2026-11-19T02:00",
        "--plan",
    )
    assert done.returncode == 0, done.stderr
    assert "1,560 minutes are missing" in done.stdout
    assert "COSUSDT-1m-2026-11-18.zip" in done.stdout
    assert "COSUSDT 2026-11-19 00:00..02:00" in done.stdout
    assert connection.execute("SELECT count(*) FROM market.candles_1m").fetchone() == (0,)


def test_a_backfill_loads_and_tells_what_it_did(
    candelabra: Run, connection: psycopg.Connection, oracle: Oracle
) -> None:
    arguments = (
        "backfill",
        "--symbols",
        "COSUSDT",
        "--from",
        "2026-11-18",
        "--to",
        "2026-11-18T01:00",
    )
    done = candelabra(*arguments)
    assert done.returncode == 0, done.stderr
    assert "inserted" in done.stdout
    assert "100%" in done.stderr
    end = DAY + 60 * MINUTE_US
    stored = read_candles(connection, "COSUSDT", DAY, end)
    assert [one.values for one in stored] == [one.values for one in oracle("COSUSDT", DAY, end)]
    assert candelabra(*arguments).stdout.strip() == "nothing is missing"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("backfill", "--symbols", "NOPEUSDT", "--from", "2026-11-18"), "no symbol 'NOPEUSDT'"),
        (("backfill", "--symbols", "COSUSDT"), "give --from"),
        (("backfill", "--from", "2026-11-18"), "no symbols"),
        (("backfill", "--symbols", "COSUSDT", "--from", "soon"), "start='soon' is no time"),
        (
            ("backfill", "--symbols", "X", "--market", "cm", "--from", "2026-11-18"),
            "unknown market",
        ),
        (("import", "nothing.csv"), "nothing.csv does not exist"),
        (("import", "--symbol", "X", "."), "holds no .csv"),
    ],
)
def test_wrong_input_is_told_in_a_sentence_without_a_traceback(
    candelabra: Run, arguments: tuple[str, ...], message: str
) -> None:
    done = candelabra(*arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_an_import_shows_its_counts_and_where_the_rejected_rows_are(
    candelabra: Run, connection: psycopg.Connection, tmp_path: Path
) -> None:
    folder = tmp_path / "inbox"
    folder.mkdir()
    good = f"{DAY},1,2,1,2,3,{DAY + MINUTE_US - 1},4,5,1,1,0"
    (folder / "ABC-1m-2026-11-18.csv").write_text(f"{good}\n{good[:20]}\n")
    done = candelabra("import", str(folder))
    assert done.returncode == 0, done.stderr
    assert "1 rows rejected: 3 columns, expected 12 (half a line?)" in done.stdout
    kept = tmp_path / "home" / "quarantine" / "ABC" / "ABC-1m-2026-11-18.csv.rejected.csv"
    assert str(kept) in done.stdout
    assert kept.exists()
    assert "rows" in done.stderr
    assert connection.execute("SELECT symbol FROM market.candles_1m").fetchall() == [("ABC",)]


def test_one_wrong_file_does_not_keep_the_others_out_but_shows_in_the_exit_code(
    candelabra: Run, connection: psycopg.Connection, tmp_path: Path
) -> None:
    (tmp_path / "ABC-1m-2026-11-18.csv").write_text(
        f"{DAY},1,2,1,2,3,{DAY + MINUTE_US - 1},4,5,1,1,0\n"
    )
    (tmp_path / "ABC-1m-2026-11-19.zip").write_bytes(b"no archive")
    done = candelabra("import", "ABC-1m-2026-11-19.zip", "ABC-1m-2026-11-18.csv")
    assert done.returncode == 1
    assert "ABC-1m-2026-11-19.zip is damaged" in done.stderr
    assert connection.execute("SELECT count(*) FROM market.candles_1m").fetchone() == (1,)
