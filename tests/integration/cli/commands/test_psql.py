"""`candelabra psql` is psql itself, as the reader, with the password out of sight."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg

ROOT = Path(__file__).parents[4]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "cli", "psql", *arguments]


def environment(url: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "DATABASE_URL": url, "CANDELABRA_HOME": "/nonexistent"}


def test_query_is_answered_and_a_failure_sets_the_exit_code(database_url: str) -> None:
    for query, code, shown in (
        ("SELECT current_setting('TimeZone')", 0, "UTC"),
        ("SELECT nonsense", 1, 'column "nonsense" does not exist'),
    ):
        done = subprocess.run(
            command("-c", query), cwd=ROOT, env=environment(database_url),
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert (done.returncode, shown in done.stdout + done.stderr) == (code, True), done.stderr


def test_every_command_runs_in_the_order_given(database_url: str) -> None:
    done = subprocess.run(
        command("-c", "SELECT 'first'", "-c", "-- none\nSELECT 'second'"), cwd=ROOT,
        env=environment(database_url), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert 0 < done.stdout.find("first") < done.stdout.find("second")


def test_ctrl_c_reaches_psql_and_the_password_is_in_no_process_list(database_url: str) -> None:
    with (
        psycopg.connect(database_url, autocommit=True) as connection,
        subprocess.Popen(
            command("-c", "SELECT pg_sleep(60)"), cwd=ROOT, env=environment(database_url),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ) as running,
    ):  # fmt: skip
        asked = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)'"
        deadline_s = time.monotonic() + 30
        while connection.execute(asked).fetchone() != (1,):
            assert time.monotonic() < deadline_s
            time.sleep(0.02)
        line = Path(f"/proc/{running.pid}/cmdline").read_text()
        assert "pg_sleep" in line
        password = database_url.split("://")[1].split("@")[0].partition(":")[2]
        assert password
        assert password not in line
        running.send_signal(signal.SIGINT)
        _, told = running.communicate(timeout=30)
    assert "canceling statement due to user request" in told
