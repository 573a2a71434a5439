"""The services of one machine, started in order and stopped in reverse order.

`demo` and `up` use it: PostgreSQL (embedded unless DATABASE_URL is set), optionally a simulated
exchange, the streamer, and Airflow. Each child writes its log to a file of its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from deploy.local.airflow import LocalAirflow
from deploy.local.postgres import EmbeddedPostgres, state_folders
from deploy.local.processes import MARKER, SupervisedProcess, end_marked, stop_all, tail
from include.errors import PermanentError, TransientError
from include.store.migrate import ROLES, migrate

PROJECT_ROOT = Path(__file__).parents[2]
ROLES_FILE = "roles.json"
ENVIRONMENT_FILE = "environment.json"
STREAMER_STOP_S = 10.0
SIMULATOR_STOP_S = 5.0
SIMULATOR_START_S = 60.0


class LocalStack:
    """Services below one folder; use it as a context manager.

    Args:
        home: folder with the services' state; one stack at a time.
        fresh: delete what an earlier run left in ``home``.
        database_url: URL of the user's PostgreSQL; empty for the embedded one.
        role_urls: the user's logins for that PostgreSQL, by role name.
    """

    def __init__(
        self,
        home: Path,
        *,
        database_url: str = "",
        role_urls: Mapping[str, str] | None = None,
        fresh: bool = False,
    ) -> None:
        self.home = home.absolute()
        self.environment: dict[str, str] = {}
        """Environment variables of the children."""
        self.airflow: LocalAirflow | None = None
        self._database_url = database_url
        self._role_urls = role_urls or {}
        self._fresh = fresh
        self._postgres: EmbeddedPostgres | None = None
        self._children: list[SupervisedProcess] = []
        self._exit = ExitStack()
        self._marker = secrets.token_hex(16)

    def __enter__(self) -> LocalStack:
        try:
            self.home.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PermanentError(
                f"cannot make {self.home}: {error.strerror}; CANDELABRA_HOME should be a folder "
                "that you may write to"
            ) from None
        self._exit.enter_context(_only_one(self.home / "lock"))
        self._end_leftovers()
        if self._fresh:
            EmbeddedPostgres(self.home / "postgres").remove()
            for place in self.home.iterdir():
                if place.is_dir():
                    shutil.rmtree(place)
            (self.home / ROLES_FILE).unlink(missing_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    @property
    def logs(self) -> Path:
        """Folder of the children's logs."""
        return self.home / "logs"

    @property
    def database_url(self) -> str:
        """URL of the database's owner."""
        return self.environment["DATABASE_URL"]

    def environment_url(self, role: str) -> str:
        """URL for a role (``streamer``, ``jobs``, ``dbt``, ``reader``)."""
        return self.environment.get(f"{role.upper()}_DATABASE_URL") or self.database_url

    def start_database(self) -> None:
        """Start PostgreSQL and bring the schema up to date, with a login for each role."""
        url, role_urls = self._database_url, dict(self._role_urls)
        if not url:
            self._postgres = EmbeddedPostgres(self.home / "postgres")
            self._exit.callback(self._postgres.stop)
            self._postgres.start()
            url = self._postgres.create_database("candelabra")
            passwords = self._role_passwords()
            role_urls = {
                role: self._postgres.url(user=role, password=passwords[role]) for role in ROLES
            }
        migrate(url, role_urls=role_urls)
        self.environment["DATABASE_URL"] = url
        for role, role_url in role_urls.items():
            variable = role.removeprefix("candelabra_").upper() + "_DATABASE_URL"
            self.environment[variable] = role_url
        self.environment["CANDELABRA_HOME"] = str(self.home)
        self._exit.callback((self.home / ENVIRONMENT_FILE).unlink, missing_ok=True)
        self._write_environment()

    def start_simulator(self, arguments: Sequence[str]) -> Mapping[str, str]:
        """Start a simulated exchange; returns its URLs by name."""
        child = self._spawn("simulator", ["-m", "simulator", *arguments], SIMULATOR_STOP_S)
        deadline = time.monotonic() + SIMULATOR_START_S
        while time.monotonic() < deadline:
            self.check()
            for line in child.log_file.read_text().splitlines():
                if line.startswith("{") and '"simulator_ready"' in line:
                    urls = {name: str(value) for name, value in json.loads(line).items()}
                    self.environment |= {
                        "BINANCE_WS_URL": urls["spot_ws_url"],
                        "BINANCE_REST_URL": urls["spot_rest_url"],
                        "BINANCE_UM_WS_URL": urls["um_ws_url"],
                        "BINANCE_UM_REST_URL": urls["um_rest_url"],
                        "BINANCE_DUMP_URL": urls["dump_url"],
                        "BINANCE_DUMP_LIST_URL": urls["dump_url"],
                    }
                    self._write_environment()
                    return urls
            time.sleep(0.05)
        raise TransientError(
            f"the simulator did not start; end of its log:\n{tail(child.log_file)}"
        )

    def start_streamer(self, arguments: Sequence[str]) -> None:
        """Start the streamer."""
        self._spawn("streamer", ["-m", "cli", "stream", *arguments], STREAMER_STOP_S)

    def streamer_serves(self) -> dict[str, str]:
        """Return the addresses of REST (``API``) and gRPC (``GRPC``) from the streamer's log."""
        found: dict[str, str] = {}
        try:
            lines = (self.logs / "streamer.log").read_text(errors="replace").splitlines()
        except OSError:
            return found
        for line in lines:
            if '_listening"' not in line:
                continue
            with contextlib.suppress(ValueError):
                told = json.loads(line)
                if told.get("event") == "grpc_listening":
                    found["GRPC"] = str(told["address"])
                elif told.get("settings") == "API_*":
                    found["API"] = str(told["url"])
        return found

    def start_airflow(
        self, on_progress: Callable[[str], None], dags: Sequence[str]
    ) -> LocalAirflow:
        """Start Airflow and wait until it is healthy and knows these DAGs."""
        metadata_url = (
            self._postgres.create_database("airflow") if self._postgres else self.database_url
        )
        self.airflow = LocalAirflow(
            self.home / "airflow",
            metadata_url=metadata_url,
            project_root=PROJECT_ROOT,
            environment=self.environment,
            while_waiting=self._check_services,
        )
        self._exit.callback(self.airflow.stop)
        on_progress("migrating Airflow's metadata")
        self.airflow.prepare()
        self.airflow.start()
        self.airflow.wait_healthy(timeout_s=180, on_progress=on_progress)
        on_progress("reading the DAGs")
        self.airflow.api.wait_dags(dags, timeout_s=120)
        return self.airflow

    def streamer_trouble(self) -> str:
        """Return why the streamer waits, by the last line of its log; empty if it does not."""
        lines = tail(self.logs / "streamer.log", lines=1)
        try:
            line = json.loads(lines)
        except ValueError:
            return ""
        if not isinstance(line, dict) or line.get("level") not in {"warning", "error"}:
            return ""
        reason = line.get("error") or line.get("reason") or ""
        return f"streamer: {line.get('event', '')} {reason}".strip()

    def check(self) -> None:
        """Raise if a service has died, with the end of its log."""
        self._check_services()
        if self.airflow is not None:
            self.airflow.check()

    def _check_services(self) -> None:
        database_ended = self._postgres.exited() if self._postgres else None
        if database_ended is not None:
            raise PermanentError(database_ended)
        for child in self._children:
            ended = child.exited()
            if ended is not None:
                raise PermanentError(f"the {ended}")

    def _spawn(self, name: str, arguments: Sequence[str], stop_s: float) -> SupervisedProcess:
        child = SupervisedProcess(
            name,
            [sys.executable, *arguments],
            environment={
                **os.environ,
                **self.environment,
                "PYTHONPATH": str(PROJECT_ROOT),
                MARKER: self._marker,
            },
            log_file=self.logs / f"{name}.log",
            working_folder=PROJECT_ROOT,
        )
        self._children.append(child)
        self._exit.callback(self._stop_child, child, stop_s)
        return child

    def _stop_child(self, child: SupervisedProcess, stop_s: float) -> None:
        self._children.remove(child)
        # Kill only this child: later children have the same marker.
        stop_all([child], marker=f"{self._marker}-none", term_timeout_s=stop_s)

    def _write_environment(self) -> None:
        """Write the settings that commands in other terminals read (``settings_here``)."""
        _write_secret(self.home / ENVIRONMENT_FILE, json.dumps(self.environment))

    def _role_passwords(self) -> dict[str, str]:
        file = self.home / ROLES_FILE
        passwords = json.loads(file.read_text()) if file.exists() else {}
        if missing := set(ROLES) - passwords.keys():
            passwords |= {role: secrets.token_urlsafe(18) for role in missing}
            _write_secret(file, json.dumps(passwords))
        return dict(passwords)

    def _end_leftovers(self) -> None:
        """Stop what an earlier, killed supervisor of this folder left running."""
        file = self.home / "marker"
        if file.exists():
            end_marked(file.read_text().strip(), term_timeout_s=STREAMER_STOP_S)
        file.write_text(self._marker)


@contextmanager
def _only_one(lock_file: Path) -> Iterator[None]:
    with lock_file.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PermanentError(
                f"another candelabra runs in {lock_file.parent}: stop it first, or set "
                "CANDELABRA_HOME to another folder"
            ) from None
        yield


def running_environment(home: Path) -> dict[str, str] | None:
    """Return the settings of the running `up` or `demo` of this home; None if none runs.

    Raises:
        PermanentError: both run.
    """
    files = [home / run / ENVIRONMENT_FILE for run in ("up", "demo")]
    running = [file for file in files if file.exists()]
    if len(running) > 1:
        raise PermanentError(
            f"both `up` and `demo` run in {home}: stop one of them, or set DATABASE_URL"
        )
    return dict(json.loads(running[0].read_text())) if running else None


def _write_secret(file: Path, text: str) -> None:
    """Write a file that its owner alone may read."""
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
        out.write(text)


def remove_state(home: Path) -> list[Path]:
    """Remove the state of the embedded services of this home; return the removed folders."""
    removed = []
    for folder in (home.absolute(), *state_folders(home.absolute())):
        if folder.is_dir():
            with contextlib.ExitStack() as locks:
                for lock in folder.glob("*/lock"):
                    locks.enter_context(_only_one(lock))
                shutil.rmtree(folder)
            removed.append(folder)
    return removed
