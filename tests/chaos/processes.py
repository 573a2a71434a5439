"""The streamer as a process that is killed, stopped and frozen, and its PostgreSQL."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import psycopg
from psycopg import sql

from deploy.local.postgres import EmbeddedPostgres
from include.store.migrate import JOBS, STREAMER, migrate

ROOT = Path(__file__).parents[2]
TEMPLATE = "chaos_template"
PASSWORD = "chaos"
STOP_TIMEOUT_S = 20.0


class EndedError(AssertionError):
    """The streamer ended although nobody had asked it to, or not as it should."""


class StreamerProcess:
    """``candelabra stream``, started again and again; all of its output goes to one file.

    Args:
        environment: its settings, as variables.
        factor: by which waits between tries are shortened.
        log_file: JSON lines of all its lives.
    """

    def __init__(self, environment: Mapping[str, str], *, factor: float, log_file: Path) -> None:
        inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        self._environment = {**inherited, **environment, "PYTHONPATH": str(ROOT)}
        self._command = [sys.executable, "-m", "tests.chaos.hurried", f"{factor:g}", "stream"]
        self.log_file = log_file
        self.starts = 0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Begin a life."""
        with self.log_file.open("ab") as out:
            self._process = subprocess.Popen(
                self._command,
                cwd=self.log_file.parent,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.starts += 1

    def check(self) -> None:
        """Raises EndedError where it has ended by itself."""
        code = None if self._process is None else self._process.poll()
        if code is not None:
            raise EndedError(f"the streamer ended by itself (exit code {code}):\n{self.tail()}")

    def kill(self) -> None:
        """As ``kill -9``."""
        process = self._running()
        process.kill()
        process.wait(STOP_TIMEOUT_S)
        self._process = None

    def terminate(self) -> None:
        """As a supervisor does; raises EndedError where it does not end cleanly."""
        process = self._running()
        process.terminate()
        try:
            code = process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise EndedError(
                f"the streamer did not end within {STOP_TIMEOUT_S:g} s of SIGTERM:\n{self.tail()}"
            ) from None
        self._process = None
        # A signal that comes before Python can hear it ends the process as well.
        if code not in (0, -signal.SIGTERM):
            raise EndedError(f"the streamer answered SIGTERM with {code}:\n{self.tail()}")

    def freeze(self) -> None:
        """As a machine that is suspended."""
        self._running().send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """The end of ``freeze``."""
        self._running().send_signal(signal.SIGCONT)

    def _running(self) -> subprocess.Popen[bytes]:
        self.check()
        if self._process is None:
            raise AssertionError("the streamer does not run")
        return self._process

    def events(self) -> Counter[str]:
        """How often it logged what."""
        found: Counter[str] = Counter()
        for line in self.log_file.read_text().splitlines():
            found[_event(line)] += 1
        return found

    def tail(self, lines: int = 25) -> str:
        """The end of its log."""
        return "\n".join(self.log_file.read_text().splitlines()[-lines:])

    def __enter__(self) -> StreamerProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(STOP_TIMEOUT_S)


def _event(line: str) -> str:
    try:
        entry = json.loads(line)
    except ValueError:
        return "(no JSON)"
    return str(entry.get("event")) if isinstance(entry, dict) else "(no JSON)"


class Database:
    """One run's database on a server that may be struck."""

    def __init__(self, server: EmbeddedPostgres, name: str) -> None:
        self._server = server
        self._name = name
        self.url = server.url(name)
        self.streamer_url = server.url(name, user=STREAMER, password=PASSWORD)
        self.jobs_url = server.url(name, user=JOBS, password=PASSWORD)

    def crash(self) -> None:
        """As ``kill -9`` of the postmaster."""
        self._server.kill()

    def shut_down(self) -> None:
        """As a restart for a new version: sessions are told and ended."""
        self._server.stop()

    def start(self) -> None:
        """On the same port; recovers."""
        self._server.start()

    def hang_up(self) -> None:
        """End all sessions of the streamer."""
        with psycopg.connect(self._server.url("postgres"), autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
                (self._name,),
            )

    def set_read_only(self, value: bool) -> None:
        """As a primary that became a standby: all sessions are refused when they write."""
        with psycopg.connect(self._server.url("postgres"), autocommit=True) as connection:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute(
                sql.SQL("ALTER SYSTEM SET default_transaction_read_only = {}").format(
                    sql.Literal("on" if value else "off")
                )
            )
            connection.execute("SELECT pg_reload_conf()")


@contextmanager
def chaos_server(folder: Path) -> Iterator[EmbeddedPostgres]:
    """A server that comes back on its port, with the template of all runs.

    Durability is off: processes are killed, the power is not cut.
    """
    folder.chmod(0o755)
    settings = {"fsync": "off", "full_page_writes": "off", "shared_buffers": "64MB"}
    with EmbeddedPostgres(folder / "pg", port=_steady_port(), settings=settings) as server:
        migrate(server.create_database(TEMPLATE))
        with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
            for role in (STREAMER, JOBS):
                connection.execute(
                    sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(
                        sql.Identifier(role), sql.Literal(PASSWORD)
                    )
                )
        yield server


@contextmanager
def fresh_database(server: EmbeddedPostgres, name: str) -> Iterator[Database]:
    """A migrated database, dropped at the end."""
    server.create_database(name, template=TEMPLATE)
    try:
        yield Database(server, name)
    finally:
        server.drop_database(name)


def _steady_port() -> int:
    """A free port that the system does not hand out to others while the server is down."""
    for port in random.sample(range(20_000, 30_000), 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("a hundred ports between 20000 and 30000 are taken")
