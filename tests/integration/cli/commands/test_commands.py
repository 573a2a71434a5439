"""The commands plan, load and import, and report wrong input in a sentence and an exit code."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import httpx
import psycopg
import pytest

from include.config import Settings
from include.domain.candles import Candle
from include.domain.timeframes import MINUTE_US, to_us
from include.store.candles.minutes import read_candles
from simulator.server import ExchangeThread
from tests.integration.jobs.faulty_host import FaultyHost

Oracle = Callable[[str, int, int], list[Candle]]
Run = Callable[..., subprocess.CompletedProcess[str]]
ROOT = Path(__file__).parents[4]
DAY = to_us(datetime(2026, 11, 18, tzinfo=UTC))


@pytest.fixture
def candelabra_environment(
    exchange: ExchangeThread, database_url: str, tmp_path: Path
) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": database_url,
        "BINANCE_REST_URL": exchange.spot_rest_url,
        "BINANCE_UM_REST_URL": exchange.um_rest_url,
        "BINANCE_CM_REST_URL": exchange.cm_rest_url,
        "BINANCE_DUMP_URL": exchange.dump_url,
        "BINANCE_DUMP_LIST_URL": exchange.dump_url,
        "CANDELABRA_HOME": str(tmp_path / "home"),
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "200",
    }


@pytest.fixture
def candelabra(candelabra_environment: dict[str, str], tmp_path: Path) -> Run:
    """Runs the command line as a person does."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "cli", *arguments],
            env=candelabra_environment, cwd=tmp_path,
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    return run


def test_plan_is_shown_and_loads_nothing(candelabra: Run, connection: psycopg.Connection) -> None:
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
    assert "daily dump COSUSDT-1m-2026-11-18.zip" in done.stdout
    assert "2026-11-19 00:00..02:00" in done.stdout
    assert "a file is dearer for 120 minutes" in done.stdout
    # the simulator lists no sizes of files that were not requested yet
    assert re.search(
        r"2 pieces: 4 requests, weight 3, (0.[01] MB of dumps|dumps of unknown size); about 1 s",
        done.stdout,
    ), done.stdout
    assert connection.execute("SELECT count(*) FROM market.candles_1m").fetchone() == (0,)


def test_backfill_loads_and_prints_a_summary(
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
    for again in (arguments, (*arguments, "--plan")):
        done = candelabra(*again)
        assert (done.returncode, done.stdout.strip()) == (0, "nothing is missing")


def test_ctrl_c_ends_a_backfill_immediately_without_damage(
    candelabra_environment: dict[str, str],
    through_host: Settings,
    host: FaultyHost,
    connection: psycopg.Connection,
    oracle: Oracle,
    tmp_path: Path,
) -> None:
    slow = threading.Event()

    def hold(answer: httpx.Response) -> httpx.Response:
        slow.wait(90)
        return answer

    scratch = tmp_path / "scratch"
    scratch.mkdir()
    host.changes["COSUSDT-1m-2026-11-18.zip"] = hold
    command = [sys.executable, "-m", "cli", "backfill", "--symbols", "COSUSDT"]
    with subprocess.Popen(
        [*command, "--from", "2026-11-17", "--to", "2026-11-19"],
        env=candelabra_environment
        | {
            "BINANCE_REST_URL": through_host.binance_rest_url,
            "BINANCE_DUMP_URL": through_host.binance_dump_url,
            "BINANCE_DUMP_LIST_URL": through_host.binance_dump_list_url,
            "TMPDIR": str(scratch),
            "LOG_LEVEL": "ERROR",
        },
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        deadline_s = time.monotonic() + 30
        while not any("COSUSDT-1m-2026-11-18.zip" in path for path in host.asked):
            assert time.monotonic() < deadline_s, host.asked
            time.sleep(0.05)
        began_s = time.monotonic()
        running.send_signal(signal.SIGINT)
        _, told = running.communicate(timeout=60)
        took_s = time.monotonic() - began_s
    slow.set()
    assert running.returncode == 130
    assert took_s < 15  # of the 90 for which the file hangs
    assert "Traceback" not in told
    assert told.strip().splitlines()[-1] == (
        "candelabra: interrupted; loaded rows stay; run it again for the rest"
    )
    assert list(scratch.iterdir()) == []
    end = DAY + 1440 * MINUTE_US
    stored = read_candles(connection, "COSUSDT", DAY - 1440 * MINUTE_US, end)
    expected = {
        one.open_time_us: one.values for one in oracle("COSUSDT", DAY - 1440 * MINUTE_US, end)
    }
    assert all(one.values == expected[one.open_time_us] for one in stored)
    assert len(stored) in {0, 1440}


WRONG_INPUT = [
    (("backfill", "--symbols", "NOPEUSDT", "--from", "2026-11-18"), "no symbol 'NOPEUSDT'"),
    (
        ("backfill", "--symbols", "CODUSDT", "--from", "2026-11-18"),
        "the exchange has no symbol 'CODUSDT'; did you mean COSUSDT",
    ),
    (
        ("backfill", "--symbols", "COSUSDT", "--from", "yesterday"),
        "--from 'yesterday' is no time: write a date or a time of UTC, such as 2026-11-01",
    ),
    (
        ("backfill", "--symbols", "COSUSDT", "--from", "2999-01-01"),
        "--from 2999-01-01 lies in the future",
    ),
    (
        ("backfill", "--symbols", "COSUSDT", "--from", "2026-11-18", "--to", "2026-11-17"),
        "--from 2026-11-18 should be before --to 2026-11-17",
    ),
    (
        ("backfill", "--symbols", "COSUSDT", "--from", "2026-11-18", "--to", "noon"),
        "--to 'noon' is no time",
    ),
    (("import", "no/such/folder"), "no/such/folder does not exist"),
    (("backfill", "--symbols", "COSUSDT"), "give --from"),
    (("backfill", "--from", "2026-11-18"), "no symbols"),
    (("backfill", "--symbols", "COSUSDT", "--from", "soon"), "--from 'soon' is no time"),
    (
        ("backfill", "--symbols", "X", "--market", "xm", "--from", "2026-11-18"),
        "unknown market",
    ),
    (("import", "nothing.csv"), "nothing.csv does not exist"),
    (("import", "--symbol", "X", "."), "holds no .csv"),
]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [  # each starts a process, so make test runs every fourth
        pytest.param(*one, marks=[pytest.mark.long] if place % 4 else [])
        for place, one in enumerate(WRONG_INPUT)
    ],
)
def test_wrong_input_is_a_message_without_a_traceback(
    candelabra: Run, arguments: tuple[str, ...], message: str
) -> None:
    done = candelabra(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.long
def test_check_names_an_unknown_symbol_and_shows_broken_rules_once(
    candelabra: Run, connection: psycopg.Connection, tmp_path: Path
) -> None:
    rows = [f"{at},1,2,1,2,3,{at + MINUTE_US - 1},4,5,1,1,0\n" for at in (DAY, DAY + 2 * MINUTE_US)]
    (tmp_path / "ABCUSDT-1m-2026-11-18.csv").write_text("".join(rows))
    assert candelabra("import", "ABCUSDT-1m-2026-11-18.csv").returncode == 0
    done = candelabra("check", "--symbols", "ABCUSD")
    assert done.returncode == 2
    assert "the database has no symbol 'ABCUSD'; did you mean ABCUSDT?" in done.stderr
    # A minute is missing. The report alone says so.
    done = candelabra("check", "--all")
    assert (done.returncode, done.stderr) == (1, "")
    assert "ABCUSDT" in done.stdout


def test_import_prints_counts_and_the_files_of_rejected_rows(
    candelabra: Run, connection: psycopg.Connection, tmp_path: Path
) -> None:
    good = f"{DAY},1,2,1,2,3,{DAY + MINUTE_US - 1},4,5,1,1,0"
    for folder, bad in (("x", [good[:20]]), ("y", ["1,2", "3,4"])):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "ABC-1m-2026-11-18.csv").write_text("\n".join([good, *bad]))
    done = candelabra("import", "x", "y")
    assert done.returncode == 3, done.stderr
    why = "rejected: 3 columns, expected 12 (half a line?)"
    assert f"x/ABC-1m-2026-11-18.csv: 1 row {why}" in done.stdout
    assert "y/ABC-1m-2026-11-18.csv: 2 rows rejected: 2 columns" in done.stdout
    kept = re.findall(r"rejected rows are kept in (\S+)", done.stdout)
    assert [len(Path(one).read_text().splitlines()) for one in kept] == [2, 3]
    assert "rows" in done.stderr
    assert '{"' not in done.stderr
    assert connection.execute("SELECT symbol FROM market.candles_1m").fetchall() == [("ABC",)]
    assert connection.execute("SELECT count(*) FROM ops.rejected_rows").fetchone() == (3,)


@pytest.mark.long
def test_home_that_cannot_be_written_is_a_message_without_a_traceback(
    candelabra: Run, candelabra_environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "ABC-1m-2026-11-18.csv").write_text(
        f"{DAY},1,2,1,2,3,{DAY + MINUTE_US - 1},4,5,1,1,0\n{DAY}\n"
    )
    candelabra_environment["CANDELABRA_HOME"] = "/proc/nobody/writes/here"  # not even root
    done = candelabra("import", "ABC-1m-2026-11-18.csv")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    told = " ".join(done.stderr.split())
    assert "CANDELABRA_HOME (/proc/nobody/writes/here) should be a folder that you may" in told


def test_wrong_file_sets_the_exit_code_and_the_others_are_loaded(
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


def test_columns_that_do_not_fit_a_file_end_with_2_and_the_others_are_loaded(
    candelabra: Run, connection: psycopg.Connection, tmp_path: Path
) -> None:
    for name, column in (("ABC.csv", "last"), ("ABD.csv", "close")):
        text = f"time,open,high,low,{column}\n{DAY // 1000},1,2,1,2\n"
        (tmp_path / name).write_text(text)
    done = candelabra("import", "--symbol", "ABC", "--columns", "close=last", "ABD.csv", "ABC.csv")
    assert done.returncode == 2
    assert "ABD.csv has no column last, which --columns names" in done.stderr
    found = connection.execute("SELECT file FROM market.foreign_candles_1m").fetchall()
    assert found == [("ABC.csv",)]


def test_sync_instruments_fills_the_registry(candelabra: Run, database_url: str) -> None:
    done = candelabra("sync-instruments", "--markets", "spot")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^spot: \d+ symbols, \d+ trading$", done.stdout, re.MULTILINE)
    with psycopg.connect(database_url) as connection:
        rows = connection.execute("SELECT DISTINCT market FROM market.instruments").fetchall()
    assert rows == [("spot",)]
    wrong = candelabra("sync-instruments", "--markets", "spot,usdm")
    assert wrong.returncode == 2
    assert "usdm" in wrong.stderr
