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
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest

from cli.local.stack import ENVIRONMENT_FILE, LocalStack, running_environment
from deploy.local import restarts
from deploy.local.processes import marked
from include.backoff import Backoff
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


def until_kept(stack: LocalStack, holds: Callable[[], object]) -> None:
    """Keep the services running until the condition holds."""
    deadline = time.monotonic() + 60
    while not holds():
        assert stack.keep() == []
        assert time.monotonic() < deadline, "not true in a minute"
        time.sleep(0.05)


def child_of(home: Path, word: str) -> psutil.Process:
    """The one running service whose command line has this word."""
    (found,) = [p for p in marked((home / "marker").read_text()) if word in p.cmdline()]
    return found


def server_of(home: Path) -> psutil.Process:
    """The PostgreSQL of this home."""
    (found,) = [
        process
        for process in psutil.Process().children()
        if str(home / "postgres" / "data") in process.cmdline()
    ]
    return found


def verified(url: str) -> int:
    """Number of verified minutes; 0 while PostgreSQL does not answer."""
    try:
        with psycopg.connect(url) as connection:
            row = connection.execute(
                "SELECT count(*) FROM market.candles_1m WHERE status = 'verified'"
            ).fetchone()
    except psycopg.OperationalError:
        return 0
    return int(row[0]) if row else 0


def test_stack_streams_excludes_a_second_one_restarts_the_dead_and_cleans_up(home: Path) -> None:
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

        # no service has the owner's login, which is the superuser's
        secret = stack.database_url.partition("//")[2].partition("@")[0]
        services = marked((home / "marker").read_text())
        assert len(services) == 2
        for service in services:
            assert secret not in str(service.environ())
        # and other databases are closed to their roles
        elsewhere = f"{stack.environment_url('reader').rpartition('/')[0]}/postgres"
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            psycopg.connect(elsewhere)

        # the streamer's addresses can be found
        serves = stack.streamer_serves()
        answer = httpx.get(f"{serves['API']}/api/v1/candles", params={"symbol": "BTCUSDT"})
        assert answer.raise_for_status().json()["candles"]
        assert serves["GRPC"].startswith("127.0.0.1:")
        assert httpx.get(f"{serves['STREAMER_HTTP']}/metrics").is_success

        # a second one is refused, and the first goes on
        with (
            pytest.raises(PermanentError, match=f"another candelabra runs in {home}: stop it"),
            LocalStack(home, fresh=True),
        ):
            pass
        stack.check()
        assert len(running(home)) == 3

        # what is killed is started again, while the others go on running
        url = stack.environment_url("reader")
        server, simulator, killed = (
            server_of(home),
            child_of(home, "simulator"),
            child_of(home, "stream"),
        )
        killed.kill()
        until_kept(stack, lambda: not killed.is_running() and stack.streamer_serves())
        assert child_of(home, "stream").pid != killed.pid
        assert server.is_running()
        assert simulator.is_running()
        before = verified(url)
        until_kept(stack, lambda: verified(url) > before)

        # the database on its port, so that the services find it
        streamer = child_of(home, "stream")
        before = verified(url)
        server.kill()
        until_kept(stack, lambda: verified(url) > before)
        assert streamer.is_running()

        # the exchange at its addresses, with the same market
        log = home / "logs" / "streamer.log"
        before = log.read_text().count('"stream_connected"')
        simulator.kill()
        until_kept(stack, lambda: log.read_text().count('"stream_connected"') > before)
        assert streamer.is_running()
    assert running(home) == []
    assert not file.exists()
    assert running_environment(home.parent) is None


def test_service_that_refuses_its_settings_is_given_up_at_once(home: Path) -> None:
    with LocalStack(home) as stack:
        with pytest.raises(PermanentError, match="simulator ended with exit code 2") as refused:
            stack.start_simulator(["--speed", "sideways"])
        assert "sideways" in str(refused.value)


def test_database_that_cannot_be_started_again_ends_the_stack(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restarts, "QUICK_DEATH_S", 3600.0)
    with LocalStack(home) as stack:
        stack.start_database()
        stack._restarters[0]._backoff = Backoff(0.01, 0.01)
        (home / "postgres" / "data" / "global" / "pg_control").unlink()
        server_of(home).kill()
        with pytest.raises(PermanentError, match="PostgreSQL ended 5 times") as ended:
            until_kept(stack, lambda: False)
        assert str(home / "postgres" / "postgres.log") in str(ended.value)
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
        stderr=subprocess.PIPE,
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


def test_stack_stops_within_ten_seconds_though_nothing_reacts(home: Path) -> None:
    process = supervisor(home)
    assert process.stdout is not None
    try:
        frozen = [one for one in psutil.process_iter() if _is_of(home, one)]
        assert len(frozen) > 6  # with PostgreSQL's own processes
        for one in frozen:
            if "postgres" not in " ".join(one.cmdline()) or "checkpointer" in one.cmdline()[0]:
                one.suspend()
        began_s = time.monotonic()
        process.terminate()
        _, logs = process.communicate(timeout=60)
        assert time.monotonic() - began_s < 10
        assert logs == ""  # kills are part of a stop in time
        assert running(home) == []
        assert [one for one in psutil.process_iter() if _is_of(home, one)] == []
    finally:
        process.kill()
        process.wait()


def _is_of(home: Path, process: psutil.Process) -> bool:
    """Whether the process is one of the stack's, or of its PostgreSQL's."""
    marker = (home / "marker").read_text().strip()
    try:
        return marker in process.environ().values() or process.cwd() == str(
            home / "postgres" / "data"
        )
    except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
        return False
