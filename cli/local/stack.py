"""The services of one machine, started in order and stopped in reverse order.

`demo` and `up` use it: PostgreSQL (embedded unless DATABASE_URL is set), optionally a simulated
exchange, the streamer, and Airflow. Each child writes its own log file.
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
from typing import Literal
from urllib.parse import urlsplit

from cli.local.links import LINKS_FILE, write_links
from deploy.local.airflow import LocalAirflow
from deploy.local.postgres import EmbeddedPostgres, state_folders
from deploy.local.processes import MARKER, SupervisedProcess, end_marked, stop_all, tail
from deploy.local.restarts import Restarter
from include.errors import PermanentError, TransientError
from include.store.migrate import ROLES, migrate

PROJECT_ROOT = Path(__file__).parents[2]
Run = Literal["up", "demo"]
RUNS: tuple[Run, ...] = ("up", "demo")
ROLES_FILE = "roles.json"
ENVIRONMENT_FILE = "environment.json"
AIRFLOW_ROLE = "airflow"
PARTS: Mapping[str, Sequence[str]] = {
    "simulator": (),
    "streamer": ("streamer", "serving", "accounts"),
    "airflow": ("jobs", "dbt", "reader"),
}
"""Roles that each service connects as; none has the owner's login."""
LEFTOVERS_STOP_S = 10.0
SERVICES_STOP_S = 4.5
"""From the signal on; the streamer stores what it has, and the simulator ends, while Airflow
stops."""
STOP_S = 6.0
"""The same for PostgreSQL, which is ended without a checkpoint afterwards."""
MIN_STOP_S = 0.5
SIMULATOR_START_S = 60.0


class LocalStack:
    """Services below one folder; use it as a context manager.

    Args:
        home: folder with the services' state; one stack at a time.
        fresh: delete what an earlier run left in ``home``.
        database_url: URL of the user's PostgreSQL; empty for the embedded one.
        role_urls: the user's logins for that PostgreSQL, by role name.
        session_hours: longest session that serving processes can begin.
    """

    def __init__(
        self,
        home: Path,
        *,
        database_url: str = "",
        role_urls: Mapping[str, str] | None = None,
        fresh: bool = False,
        session_hours: int | None = None,
    ) -> None:
        self.home = home.absolute()
        self.environment: dict[str, str] = {}
        """Settings for commands in other terminals; the services get parts of it."""
        self.airflow: LocalAirflow | None = None
        self._database_url = database_url
        self._role_urls = role_urls or {}
        self._fresh = fresh
        self._session_hours = session_hours
        self._postgres: EmbeddedPostgres | None = None
        self._children: list[SupervisedProcess] = []
        self._restarters: list[Restarter] = []
        self._exit = ExitStack()
        self._marker = secrets.token_hex(16)
        self._stop_began_s = 0.0

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
        (self.home / LINKS_FILE).unlink(missing_ok=True)
        if self._fresh:
            EmbeddedPostgres(self.home / "postgres").remove()
            for place in self.home.iterdir():
                if place.is_dir():
                    shutil.rmtree(place)
            (self.home / ROLES_FILE).unlink(missing_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop all services within ten seconds."""
        self._stop_began_s = time.monotonic()
        for child in reversed(self._children):
            child.terminate()  # none needs Airflow, which stops first
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
        """URL for a role (``streamer``, ``jobs``, ``dbt``, ``reader``, ``serving``)."""
        return self.environment.get(f"{role.upper()}_DATABASE_URL") or self.database_url

    def environment_of(self, part: str) -> dict[str, str]:
        """Return the settings of a service of ``PARTS``: with URLs of this service's roles only.

        The others are empty, because the service inherits this process's environment.
        """
        urls = {f"{role.removeprefix('candelabra_').upper()}_DATABASE_URL": "" for role in ROLES}
        for role in PARTS[part]:
            urls[f"{role.upper()}_DATABASE_URL"] = self.environment_url(role)
        return self.environment | urls | {"DATABASE_URL": ""}

    def start_database(self) -> None:
        """Start PostgreSQL and bring the schema up to date, with a login for each role."""
        url, role_urls = self._database_url, dict(self._role_urls)
        if not url:
            self._postgres = EmbeddedPostgres(self.home / "postgres")
            self._exit.callback(self._stop_postgres)
            self._postgres.start()
            self._restarters.append(Restarter(self._postgres))
            url = self._postgres.create_database("candelabra")
            self._postgres.close_to_others("postgres", "template1")
            passwords = self._role_passwords()
            role_urls = {
                role: self._postgres.url(user=role, password=passwords[role]) for role in ROLES
            }
        migrate(url, role_urls=role_urls, session_hours=self._session_hours)
        self.environment["DATABASE_URL"] = url
        for role, role_url in role_urls.items():
            variable = role.removeprefix("candelabra_").upper() + "_DATABASE_URL"
            self.environment[variable] = role_url
        self.environment["CANDELABRA_HOME"] = str(self.home)
        self._exit.callback((self.home / ENVIRONMENT_FILE).unlink, missing_ok=True)
        self._write_environment()

    def start_simulator(self, arguments: Sequence[str]) -> Mapping[str, str]:
        """Start a simulated exchange; returns its URLs by name."""
        child = self._spawn("simulator", ["-m", "simulator", *arguments])
        deadline = time.monotonic() + SIMULATOR_START_S
        while time.monotonic() < deadline:
            self.check()
            for line in child.output().splitlines():
                if line.startswith("{") and '"simulator_ready"' in line:
                    urls = {name: str(value) for name, value in json.loads(line).items()}
                    child.add_arguments(*_same_ports(urls))
                    self.environment |= {
                        "BINANCE_WS_URL": urls["spot_ws_url"],
                        "BINANCE_REST_URL": urls["spot_rest_url"],
                        "BINANCE_UM_WS_URL": urls["um_ws_url"],
                        "BINANCE_CM_WS_URL": urls["cm_ws_url"],
                        "BINANCE_UM_REST_URL": urls["um_rest_url"],
                        "BINANCE_CM_REST_URL": urls["cm_rest_url"],
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
        self._spawn("streamer", ["-m", "cli", "stream", *arguments])

    def streamer_serves(self) -> dict[str, str]:
        """Return the addresses of REST, gRPC and metrics from the streamer's log.

        The names are those of their settings: ``API``, ``GRPC``, ``STREAMER_HTTP``.
        Empty until the running streamer has logged them.
        """
        found: dict[str, str] = {}
        streamer = next((child for child in self._children if child.name == "streamer"), None)
        for line in streamer.output().splitlines() if streamer and streamer.is_running else ():
            if '_listening"' not in line:
                continue
            with contextlib.suppress(ValueError):
                told = json.loads(line)
                if told.get("event") == "grpc_listening":
                    found["GRPC"] = str(told["address"])
                elif told.get("event") == "http_listening":
                    found[str(told["settings"]).removesuffix("_*")] = str(told["url"])
        return found

    def write_links(self, links: Mapping[str, str]) -> None:
        """Write the links that ``candelabra status`` prints while this stack runs."""
        if not (self.home / LINKS_FILE).exists():
            self._exit.callback((self.home / LINKS_FILE).unlink, missing_ok=True)
        write_links(self.home, links)

    def start_airflow(
        self, on_progress: Callable[[str], None], dags: Sequence[str]
    ) -> LocalAirflow:
        """Start Airflow and wait until it is healthy and knows these DAGs."""
        metadata_url = (
            self._postgres.create_owned_database(
                "airflow", owner=AIRFLOW_ROLE, password=self._role_passwords()[AIRFLOW_ROLE]
            )
            if self._postgres
            else self.database_url
        )
        self.airflow = LocalAirflow(
            self.home / "airflow",
            metadata_url=metadata_url,
            project_root=PROJECT_ROOT,
            environment=self.environment_of("airflow"),
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

    def trouble(self) -> str:
        """Keep the services running; return what is wrong with them, empty if nothing is."""
        # The first line names the log; there is no room for the end of it.
        given_up = [reason.splitlines()[0].rstrip(":") for reason in self.keep()]
        return "\n".join(filter(None, [*given_up, self.streamer_trouble()]))

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

    def keep(self) -> list[str]:
        """Start services that died again; return why some are not started any more.

        Raises:
            PermanentError: PostgreSQL died too often; nothing works without it.
        """
        given_up = self._keep_services()
        return given_up + (self.airflow.keep() if self.airflow else [])

    def check(self) -> None:
        """Keep the services running; raise if one died too often, with the end of its log."""
        self._check_services()
        if self.airflow is not None:
            self.airflow.check()

    def _keep_services(self) -> list[str]:
        for restarter in self._restarters:
            restarter.keep()
            if restarter.given_up and restarter.service is self._postgres:
                raise PermanentError(restarter.given_up)
        return [one.given_up for one in self._restarters if one.given_up]

    def _check_services(self) -> None:
        given_up = self._keep_services()
        if given_up:
            raise PermanentError("\n".join(given_up))

    def _spawn(self, name: str, arguments: Sequence[str]) -> SupervisedProcess:
        child = SupervisedProcess(
            name,
            [sys.executable, *arguments],
            environment={
                **os.environ,
                **self.environment_of(name),
                "PYTHONPATH": str(PROJECT_ROOT),
                MARKER: self._marker,
            },
            log_file=self.logs / f"{name}.log",
            working_folder=PROJECT_ROOT,
        )
        self._children.append(child)
        self._restarters.append(Restarter(child))
        self._exit.callback(self._stop_child, child)
        return child

    def _stop_child(self, child: SupervisedProcess) -> None:
        self._children.remove(child)
        self._restarters = [one for one in self._restarters if one.service is not child]
        # Kill only this child: later children have the same marker.
        stop_all(
            [child],
            marker=f"{self._marker}-none",
            term_timeout_s=self._left_s(SERVICES_STOP_S),
        )

    def _stop_postgres(self) -> None:
        if self._postgres is not None:
            self._postgres.stop(timeout_s=self._left_s(STOP_S))

    def _left_s(self, limit_s: float) -> float:
        """Return the time that a service has to stop, if all have ``limit_s``."""
        return max(MIN_STOP_S, self._stop_began_s + limit_s - time.monotonic())

    def _write_environment(self) -> None:
        """Write the settings that commands in other terminals read (``settings_here``)."""
        _write_secret(self.home / ENVIRONMENT_FILE, json.dumps(self.environment))

    def _role_passwords(self) -> dict[str, str]:
        file = self.home / ROLES_FILE
        passwords = json.loads(file.read_text()) if file.exists() else {}
        if missing := {*ROLES, AIRFLOW_ROLE} - passwords.keys():
            passwords |= {role: secrets.token_urlsafe(18) for role in missing}
            _write_secret(file, json.dumps(passwords))
        return dict(passwords)

    def _end_leftovers(self) -> None:
        """Stop what an earlier, killed supervisor of this folder left running."""
        file = self.home / "marker"
        if file.exists():
            end_marked(file.read_text().strip(), term_timeout_s=LEFTOVERS_STOP_S)
        file.write_text(self._marker)


def _same_ports(urls: Mapping[str, str]) -> list[str]:
    """Return options that make a simulator serve at these URLs again."""
    names = {
        "http": "dump_url",
        "spot-ws": "spot_ws_url",
        "um-ws": "um_ws_url",
        "cm-ws": "cm_ws_url",
    }
    return [f"--{option}-port={urlsplit(urls[name]).port}" for option, name in names.items()]


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


def running_environment(home: Path, run: Run | None = None) -> dict[str, str] | None:
    """Return the settings of the running `up` or `demo` of this home; None if it does not run.

    Args:
        run: which of the two; needed only where both run.

    Raises:
        PermanentError: both run.
    """
    files = [home / one / ENVIRONMENT_FILE for one in ((run,) if run else RUNS)]
    running = [file for file in files if file.exists()]
    if len(running) > 1:
        raise PermanentError(
            f"both `up` and `demo` run in {home}: choose one with --up or --demo after the command"
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
