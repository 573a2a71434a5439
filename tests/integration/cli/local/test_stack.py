"""The services of `demo` and `up`, without Airflow: started, watched, and wholly stopped."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest

from cli.local.stack import ENVIRONMENT_FILE, LocalStack, running_environment
from deploy.local.processes import marked
from include.errors import PermanentError

pytestmark = pytest.mark.xdist_group("stack")
SIMULATOR = ["--symbols", "BTCUSDT", "--speed", "20"]
STREAMER = ["--symbols", "BTCUSDT"]
ROOT = Path(__file__).parents[4]


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder that the server's user can reach."""
    with tempfile.TemporaryDirectory(prefix="candelabra-stack-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder) / "demo"


def running(home: Path) -> list[str]:
    """Programs of the stack in this home: those of its marker, and PostgreSQL's."""
    found = marked((home / "marker").read_text().strip())
    for process in psutil.process_iter():
        try:
            if str(home / "postgres" / "data") in process.cmdline():
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return [" ".join(process.cmdline()[:5]) for process in found]


def wait_for_rows(url: str) -> None:
    """Wait until the streamer has written a verified minute."""
    deadline = time.monotonic() + 60
    query = "SELECT count(*) FROM market.candles_1m WHERE status = 'verified'"
    with psycopg.connect(url, autocommit=True) as connection:
        while connection.execute(query).fetchone() == (0,):
            assert time.monotonic() < deadline, "no verified minute in a minute"
            time.sleep(0.1)


def wait_for_check(stack: LocalStack) -> str:
    """Output of ``check`` once it has noticed."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            stack.check()
        except PermanentError as error:
            return str(error)
        time.sleep(0.05)
    raise AssertionError("check noticed nothing")


def test_stack_streams_excludes_a_second_one_notices_a_death_and_cleans_up(home: Path) -> None:
    with LocalStack(home) as stack:
        stack.start_database()
        stack.start_simulator(SIMULATOR)
        stack.start_streamer(STREAMER)
        wait_for_rows(stack.environment_url("reader"))
        stack.check()

        # its settings can be read by their owner alone, and by the commands that look for them
        file = home / ENVIRONMENT_FILE
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        told = running_environment(home.parent)
        assert told == json.loads(file.read_text())
        assert told is not None
        assert told["DATABASE_URL"] == stack.database_url
        # the exchange as well, which is started after the database
        assert told["BINANCE_REST_URL"].startswith("http://127.0.0.1:")

        # the streamer's addresses can be found
        serves = stack.streamer_serves()
        answer = httpx.get(f"{serves['API']}/api/v1/candles", params={"symbol": "BTCUSDT"})
        assert answer.raise_for_status().json()["candles"]
        assert serves["GRPC"].startswith("127.0.0.1:")

        # a second one is refused, and the first goes on
        with (
            pytest.raises(PermanentError, match=f"another candelabra runs in {home}: stop it"),
            LocalStack(home, fresh=True),
        ):
            pass
        stack.check()
        assert len(running(home)) == 3

        (streamer,) = [p for p in marked((home / "marker").read_text()) if "stream" in p.cmdline()]
        streamer.kill()
        said = wait_for_check(stack)
        assert said.startswith(f"the streamer was killed by SIGKILL; end of {stack.logs}")
        assert "stream_connected" in said
    assert running(home) == []
    assert not file.exists()
    assert running_environment(home.parent) is None


def test_end_of_the_database_is_noticed(home: Path) -> None:
    with LocalStack(home) as stack:
        stack.start_database()
        stack.check()
        (server,) = [
            process
            for process in psutil.Process().children()
            if str(home / "postgres" / "data") in process.cmdline()
        ]
        server.kill()
        said = wait_for_check(stack)
        assert "PostgreSQL ended" in said
        assert str(home / "postgres" / "postgres.log") in said
    assert running(home) == []


def test_next_supervisor_ends_the_processes_of_a_killed_one(home: Path) -> None:
    process = supervisor(home)
    process.kill()
    process.wait(10)
    process.stdout.close()  # type: ignore[union-attr]
    left = running(home)
    assert len(left) == 3
    with LocalStack(home, fresh=True):
        assert running(home) == []
        assert not (home / "postgres").exists()


SUPERVISOR = """
import sys, time
from pathlib import Path
from cli.local.demo import _interruptible
from cli.local.stack import LocalStack
from include.logs import configure_logging

configure_logging("WARNING", "json")
with _interruptible(), LocalStack(Path(sys.argv[1])) as stack:
    try:
        stack.start_database()
        stack.start_simulator(["--symbols", "BTCUSDT"])
        stack.start_streamer(["--symbols", "BTCUSDT"])
        print("ready", flush=True)
        while True:
            time.sleep(0.1)
            stack.check()
    except KeyboardInterrupt:
        print("stopping", flush=True)
"""


def supervisor(home: Path) -> subprocess.Popen[str]:
    """A process that runs a stack as `demo` does, once everything is up."""
    process = subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, str(home)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    if (said := process.stdout.readline()) != "ready\n":
        process.terminate()
        process.communicate(timeout=30)
        raise AssertionError(f"it did not start; it said {said!r}")
    return process


@pytest.mark.parametrize(
    ("first", "second"),
    [(signal.SIGINT, signal.SIGTERM), (signal.SIGTERM, signal.SIGINT)],
    ids=["int-term", "term-int"],
)
def test_two_quick_signals_leave_no_process(
    home: Path, first: signal.Signals, second: signal.Signals
) -> None:
    process = supervisor(home)
    try:
        assert len(running(home)) == 3
        process.send_signal(first)
        assert process.stdout is not None
        assert process.stdout.readline() == "stopping\n"
        for number in (second, first, second):
            process.send_signal(number)
        process.communicate(timeout=30)
        assert process.returncode == 0
        assert running(home) == []
        assert not (home / ENVIRONMENT_FILE).exists()
    finally:
        process.kill()
        process.wait()
