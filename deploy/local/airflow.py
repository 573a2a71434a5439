"""Run Airflow's four processes: API server, scheduler, DAG processor and triggerer.

``airflow standalone`` leaves its children running on SIGTERM, so this module starts, watches and
stops each process. It uses ``python -m airflow``, because console scripts break if the path of the
environment contains a space.
"""

from __future__ import annotations

import fcntl
import secrets
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import httpx
import structlog

from deploy.local.airflow_api import AirflowApi
from deploy.local.airflow_environment import (
    USERNAME,
    airflow_environment,
    read_or_create_secrets,
    scheduler_environment,
)
from deploy.local.airflow_pools import (
    JOBS_CONNECTION,
    READER_CONNECTION,
    set_pools_and_connections,
)
from deploy.local.polling import attempts
from deploy.local.processes import (
    MARKER,
    SupervisedProcess,
    end_marked,
    stop_all,
    tail,
    terminate,
)
from deploy.local.restarts import Restarter
from include.errors import PermanentError, TransientError

log = structlog.get_logger(__name__)

COMMANDS: Mapping[str, tuple[str, ...]] = {
    "api-server": ("api-server",),
    "scheduler": ("scheduler", "--skip-serve-logs"),
    "dag-processor": ("dag-processor",),
    "triggerer": ("triggerer", "--skip-serve-logs"),
}
COMPONENTS = frozenset({"metadatabase", "scheduler", "triggerer", "dag_processor"})

MIGRATE_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 3.5
"""For all but the API server, and for tasks; Airflow runs a task that was killed again."""
SERVING_STOP_S = 0.5
ORPHANS_TIMEOUT_S = 15.0


class LocalAirflow:
    """An Airflow on loopback that this process owns.

    Args:
        home: AIRFLOW_HOME with keys, password and logs. One supervisor at a time.
        metadata_url: libpq URL of an existing, possibly empty database.
        project_root: contains ``dags/``; added to the import path of tasks.
        environment: variables for tasks, such as JOBS_DATABASE_URL and DBT_DATABASE_URL.
        port: of the API server; 0: chosen by the system.
        while_waiting: called in each iteration while ``api`` waits; raises if another process of
            the stack has ended.
    """

    username = USERNAME

    def __init__(
        self,
        home: Path,
        *,
        metadata_url: str,
        project_root: Path,
        environment: Mapping[str, str],
        port: int = 0,
        while_waiting: Callable[[], None] | None = None,
    ) -> None:
        self.home = home.absolute()
        self._while_waiting = while_waiting
        self._metadata_url = metadata_url
        self._project_root = project_root.absolute()
        self._extra = dict(environment)
        self._wanted_port = port
        self._children: list[SupervisedProcess] = []
        self._restarters: list[Restarter] = []
        self._marker = ""
        self._lock: IO[str] | None = None
        self._reservation: socket.socket | None = None
        self._api: AirflowApi | None = None

    # --- life

    def prepare(self) -> None:
        """Create secrets, stop orphaned processes, migrate the metadata, set pools and connections.

        Raises:
            PermanentError: another supervisor uses this home, or the migration failed.
            TransientError: the migration timed out.
        """
        self._lock_home()
        log_file = self.home / "logs" / "db-migrate.log"
        log_file.parent.mkdir(parents=True, exist_ok=True)
        with log_file.open("ab") as out:
            try:
                done = subprocess.run(
                    airflow_command("db", "migrate"),
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    cwd=self.home,
                    env=self._environment(),
                    timeout=MIGRATE_TIMEOUT_S,
                    check=False,
                )
            except subprocess.TimeoutExpired as error:
                raise TransientError(
                    f"Airflow's migration took longer than {MIGRATE_TIMEOUT_S:g} s; see {log_file}"
                ) from error
        if done.returncode:
            raise PermanentError(
                f"`airflow db migrate` ended with exit code {done.returncode}; "
                f"end of {log_file}:\n{tail(log_file)}"
            )
        owner = self._extra.get("DATABASE_URL", "")
        outcome = set_pools_and_connections(
            self._environment(),
            project_root=self._project_root,
            urls={
                READER_CONNECTION: self._extra.get("READER_DATABASE_URL", owner),
                JOBS_CONNECTION: self._extra.get("JOBS_DATABASE_URL", owner),
            },
        )
        log.info("airflow_pools_set", pools=outcome.pools, connections=outcome.connections)

    def start(self) -> None:
        """Start the four processes; ``wait_healthy`` waits until they are ready."""
        if self._children:
            raise PermanentError("this Airflow is already running: stop it first")
        self._lock_home()
        environment = self._environment()
        preload = scheduler_environment(self._project_root)
        for name, arguments in COMMANDS.items():
            child = SupervisedProcess(
                f"airflow {name}",
                airflow_command(*arguments),
                environment=environment | (preload if name == "scheduler" else {}),
                log_file=self.home / "logs" / f"{name}.log",
                working_folder=self.home,
            )
            self._children.append(child)
            self._restarters.append(Restarter(child))
            log.info("airflow_process_started", process=name, pid=child.pid)

    def wait_healthy(
        self, *, timeout_s: float = 120.0, on_progress: Callable[[str], None] | None = None
    ) -> None:
        """Wait until all four processes are healthy.

        ``on_progress`` is called with one line after each change.

        Raises:
            PermanentError: a process ended; the message contains the end of its log.
            TransientError: not healthy within ``timeout_s``.
        """
        reported = line = ""
        for _ in attempts(timeout_s, interval_s=0.25):
            self.check()
            waiting = self._unhealthy()
            line = f"waiting for {', '.join(sorted(waiting))}" if waiting else "healthy"
            if line != reported and on_progress is not None:
                on_progress(line)
            reported = line
            if not waiting:
                break
        else:
            raise TransientError(
                f"Airflow is not healthy after {timeout_s:g} s, {line}; logs: {self.home / 'logs'}"
            )
        self._release_port()

    def stop(self, *, term_timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Stop all processes and their tasks within six seconds; does nothing if none runs.

        Airflow retries interrupted tasks after its next start.
        """
        if self._api is not None:
            self._api.close()
            self._api = None
        if self._children:
            # The API server last: tasks report their end to it. It keeps no state.
            serving = [child for child in self._children if child.name.endswith(" api-server")]
            others = [child for child in self._children if child not in serving]
            terminate(others, marker=self._marker, timeout_s=term_timeout_s)
            stop_all(serving, marker=self._marker, term_timeout_s=SERVING_STOP_S)
            log.info("airflow_stopped", home=str(self.home))
        self._children = []
        self._restarters = []
        self._release_port()
        if self._lock is not None:
            (self.home / "marker").unlink(missing_ok=True)
            self._lock.close()
            self._lock = None

    def __enter__(self) -> LocalAirflow:
        with ExitStack() as on_failure:
            on_failure.callback(self.stop)
            self.prepare()
            self.start()
            on_failure.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # --- state

    def keep(self) -> list[str]:
        """Start processes that died again; return why some are not started any more."""
        for restarter in self._restarters:
            restarter.keep()
        return [one.given_up for one in self._restarters if one.given_up]

    def check(self) -> None:
        """Keep the processes running; raise PermanentError if one died too often."""
        given_up = self.keep()
        if given_up:
            raise PermanentError("\n".join(given_up))

    @property
    def pids(self) -> dict[str, int]:
        """Process ids by name."""
        return {child.name: child.pid for child in self._children}

    @property
    def marker(self) -> str:
        """Value of ``processes.MARKER`` in the environment of all processes."""
        return self._marker

    @property
    def port(self) -> int:
        """Port of the API server; does not change once it is known."""
        if self._wanted_port == 0:
            # Both sides set SO_REUSEADDR: the API server can bind the port while this socket
            # prevents others, and outgoing connections, from using it.
            self._reservation = socket.socket()
            self._reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._reservation.bind(("127.0.0.1", 0))
            self._wanted_port = int(self._reservation.getsockname()[1])
        return self._wanted_port

    @property
    def url(self) -> str:
        """Base URL of the UI and the API."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def password(self) -> str:
        """Password of ``username``; also in ``passwords.json`` (mode 0600) of the home."""
        return read_or_create_secrets(self.home)["password"]

    @property
    def api(self) -> AirflowApi:
        """REST client; its waits fail early if a process ends."""
        if self._api is None:
            self._api = AirflowApi(
                self.url,
                username=self.username,
                password=self.password,
                while_waiting=self._check_all,
            )
        return self._api

    def _check_all(self) -> None:
        self.check()
        if self._while_waiting is not None:
            self._while_waiting()

    # --- internals

    def _environment(self) -> dict[str, str]:
        environment = airflow_environment(
            self.home,
            metadata_url=self._metadata_url,
            project_root=self._project_root,
            port=self.port,
            extra=self._extra,
        )
        return environment | {MARKER: self._marker}

    def _lock_home(self) -> None:
        """Lock the home and stop processes that an earlier supervisor left behind."""
        if self._lock is not None:
            return
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (self.home / "supervisor.lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise PermanentError(
                f"another Candelabra runs the Airflow in {self.home}: stop it first, or "
                "set CANDELABRA_HOME to another folder"
            ) from None
        self._lock = lock
        marker_file = self.home / "marker"
        if marker_file.exists():
            orphans = end_marked(marker_file.read_text(), term_timeout_s=ORPHANS_TIMEOUT_S)
            if orphans:
                log.warning("airflow_orphans_ended", count=orphans, home=str(self.home))
        self._marker = f"airflow-{secrets.token_hex(8)}"
        marker_file.write_text(self._marker)

    def _unhealthy(self) -> set[str]:
        try:
            health = self.api.health()
        except httpx.HTTPError:
            return {"api-server"}
        return {name for name in COMPONENTS if health.get(name) != "healthy"}

    def _release_port(self) -> None:
        if self._reservation is not None:
            self._reservation.close()
            self._reservation = None


def airflow_command(*arguments: str) -> list[str]:
    # -P: the working folder is not on the import path.
    return [sys.executable, "-P", "-m", "airflow", *arguments]
