"""Services of docker-compose.yml run as processes, with the same commands, variables and checks.

Only addresses and folders of the containers are translated to this machine.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest

from deploy.docker.health import check_candles
from deploy.local.airflow_api import AirflowApi
from deploy.local.postgres import EmbeddedPostgres, psql_program
from deploy.local.processes import MARKER, SupervisedProcess, marked, stop_all, tail
from include.domain.timeframes import minute_of
from include.errors import TransientError
from include.store.candles.minutes import merge_candidates
from tests.ports import steady_port
from tests.unit.deploy.container_files import (
    ROOT,
    image_environment,
    load_compose,
    read_dockerfile,
    read_env,
    target_of,
)
from tests.unit.store.candidates import candidate, candle

pytestmark = pytest.mark.timeout(900)

STAGES = read_dockerfile()[1]
REPEATABLE = ROOT / "include" / "store" / "migrations" / "sql" / "repeatable"
SLOW = 4
"""Timeouts of docker-compose.yml are multiplied by this; the machine may be busy."""


@dataclass
class Stack:
    """The Compose file with the variables of make-env.sh and simulator.env."""

    folder: Path
    postgres_port: int
    airflow_port: int
    streamer_port: int
    services: dict[str, Any]
    secrets: dict[str, str]
    addresses: dict[str, str] = field(default_factory=dict)
    children: dict[str, SupervisedProcess] = field(default_factory=dict)
    marker: str = field(default_factory=lambda: secrets.token_hex(16))

    def translated(self, text: str) -> str:
        replacements = {
            "@postgres:5432/": f"@127.0.0.1:{self.postgres_port}/",
            "http://airflow-api-server:8080": f"http://127.0.0.1:{self.airflow_port}",
            "/run/airflow": f"{self.folder}/{{name}}-home",
            "/var/log/candelabra": f"{self.folder}/airflow-logs",
            "/var/lib/candelabra": f"{self.folder}/jobs",
            "/opt/candelabra": str(ROOT),
            **self.addresses,
        }
        for theirs, ours in replacements.items():
            text = text.replace(theirs, ours)
        return text

    def environment(self, name: str) -> dict[str, str]:
        service = self.services[name]
        values = image_environment(STAGES, target_of(service)) | service["environment"]
        values = {
            key: self.translated(value).replace("{name}", name) for key, value in values.items()
        }
        if name.startswith("airflow"):
            values["AIRFLOW__API__PORT"] = str(self.airflow_port)
            values["AIRFLOW__API__HOST"] = "127.0.0.1"
        if name == "streamer":
            values["STREAMER_HTTP_PORT"] = str(self.streamer_port)
            values |= {"API_PORT": "0", "GRPC_PORT": "0"}  # a container has them to itself
        return values | {"PATH": os.environ["PATH"], "HOME": "/nonexistent", MARKER: self.marker}

    def program(self, name: str) -> list[str]:
        service = self.services[name]
        entry = service.get("entrypoint") or STAGES[target_of(service)].form("ENTRYPOINT")
        return [sys.executable, *entry[1:], *service["command"]]

    def run(self, name: str) -> subprocess.CompletedProcess[str]:
        """Run a one-shot service to its end."""
        return self._run(name, self.program(name), timeout_s=120)

    def check(self, name: str) -> subprocess.CompletedProcess[str]:
        """Run the health check of a service once."""
        kind, program, *arguments = self.services[name]["healthcheck"]["test"]
        assert (kind, program) == ("CMD", "python")
        program_arguments = [self.translated(one) for one in arguments]
        seconds = int(self.services[name]["healthcheck"]["timeout"].removesuffix("s"))
        return self._run(name, [sys.executable, *program_arguments], timeout_s=SLOW * seconds)

    def _run(
        self, name: str, program: Sequence[str], *, timeout_s: float
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            program,
            cwd=ROOT,
            env=self.environment(name),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def start(self, name: str, *, program: Sequence[str] | None = None) -> SupervisedProcess:
        child = SupervisedProcess(
            name,
            program or self.program(name),
            environment=self.environment(name),
            log_file=self.folder / f"{name}.log",
            working_folder=ROOT,
        )
        self.children[name] = child
        return child

    def wait_healthy(self, name: str, *, timeout_s: float = 300) -> str:
        deadline = time.monotonic() + timeout_s
        while (done := self.check(name)).returncode:
            ended = self.children[name].exited()
            assert ended is None, str(ended)
            assert time.monotonic() < deadline, done.stderr + tail(self.folder / f"{name}.log")
            time.sleep(0.3)
        return done.stdout

    def stop(self, *names: str) -> dict[str, int]:
        """Send SIGTERM to the main processes, as an engine does; return the exit codes."""
        stopping = {name: self.children.pop(name) for name in names}
        try:
            for child in stopping.values():
                os.kill(child.pid, signal.SIGTERM)
            codes = {}
            for name, child in stopping.items():
                grace = self.services[name]["stop_grace_period"]
                seconds = 60 if grace == "1m" else int(grace.removesuffix("s"))
                codes[name] = exit_code_of(child, timeout_s=SLOW * seconds)
            return codes
        finally:
            stop_all(list(stopping.values()), marker=f"{self.marker}-none", term_timeout_s=0.1)


def exit_code_of(child: SupervisedProcess, *, timeout_s: float) -> int:
    wait_for(lambda: child.exited() is not None, timeout_s=timeout_s, what=f"end of {child.name}")
    end = child.exited()
    assert end is not None
    return end.exit_code


def wait_for(holds: Callable[[], bool], *, timeout_s: float, what: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"no {what} within {timeout_s:g} s"
        time.sleep(0.1)


@contextmanager
def set_up_postgres(folder: Path, made: dict[str, str]) -> Iterator[EmbeddedPostgres]:
    """Start a server like the image does: superuser postgres, then our init script."""
    with EmbeddedPostgres(folder / "pg", settings={"fsync": "off"}) as server:
        with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
            password = psycopg.sql.Literal(made["POSTGRES_PASSWORD"])
            connection.execute(
                psycopg.sql.SQL("CREATE ROLE postgres SUPERUSER LOGIN PASSWORD {}").format(password)
            )
        superuser = server.url("postgres", user="postgres", password=made["POSTGRES_PASSWORD"])
        with psycopg.connect(superuser, autocommit=True) as connection:
            connection.execute("ALTER ROLE candelabra RENAME TO embedded")
        (script,) = (ROOT / "deploy" / "docker" / "postgres").iterdir()
        assert os.access(script, os.X_OK)
        subprocess.run(
            ["bash", script],
            env={
                **load_compose(made)["services"]["postgres"]["environment"],
                "POSTGRES_USER": "postgres",
                # Compose mounts this folder; test_compose checks the mount.
                "ADMINISTRATOR_SQL": str(REPEATABLE / "administrator.sql"),
                "PATH": f"{psql_program().parent}:{os.environ['PATH']}",
                "PGHOST": "127.0.0.1",
                "PGPORT": str(server.port),
                "PGPASSWORD": made["POSTGRES_PASSWORD"],
            },
            check=True,
            capture_output=True,
            timeout=60,
        )
        yield server


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """A migrated PostgreSQL and a running simulator."""
    with tempfile.TemporaryDirectory(prefix="candelabra-containers-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        env_file = folder / ".env"
        make_env = ROOT / "deploy" / "docker" / "make-env.sh"
        subprocess.run(["sh", make_env, env_file], check=True, capture_output=True, timeout=30)
        made = read_env(env_file)
        simulated = read_env(ROOT / "deploy" / "docker" / "simulator.env")
        with set_up_postgres(folder, made) as server:
            services = load_compose({**made, **simulated})["services"]
            running = Stack(folder, server.port, steady_port(), steady_port(), services, made)
            try:
                migrated = running.run("migrate")
                assert migrated.returncode == 0, migrated.stderr
                start_simulator(running)
                yield running
            finally:
                stop_all(list(running.children.values()), marker=running.marker, term_timeout_s=5)
        assert marked(running.marker) == []


def start_simulator(stack: Stack) -> None:
    """Run the simulator's command on free ports."""
    command = stack.program("simulator")
    local = {
        "--host=0.0.0.0": "--host=127.0.0.1",
        "--http-port=9000": "--http-port=0",
        "--spot-ws-port=9001": "--spot-ws-port=0",
        "--um-ws-port=9002": "--um-ws-port=0",
        "--cm-ws-port=9003": "--cm-ws-port=0",
    }
    assert local.keys() <= set(command)
    command = [local.get(one, one) for one in command]
    stack.services["simulator"]["environment"] = {}
    child = stack.start("simulator", program=command)

    def is_ready() -> bool:
        assert child.exited() is None, str(child.exited())
        return "simulator_ready" in child.log_file.read_text()

    wait_for(is_ready, timeout_s=60, what="simulator")
    urls = json.loads(child.log_file.read_text().splitlines()[0])
    stack.addresses = {
        "ws://simulator:9001": urls["spot_ws_url"],
        "ws://simulator:9002": urls["um_ws_url"],
        "ws://simulator:9003": urls["cm_ws_url"],
        "http://simulator:9000": urls["spot_rest_url"],
        "http://127.0.0.1:9000": urls["control_url"],
    }
    assert stack.check("simulator").returncode == 0


def connect(stack: Stack, user: str, database: str) -> psycopg.Connection[Any]:
    password = {
        "candelabra": "CANDELABRA_OWNER_PASSWORD",
        "airflow": "AIRFLOW_DATABASE_PASSWORD",
        "candelabra_reader": "CANDELABRA_READER_PASSWORD",
        "candelabra_streamer": "CANDELABRA_STREAMER_PASSWORD",
    }[user]
    return psycopg.connect(
        host="127.0.0.1",
        port=stack.postgres_port,
        user=user,
        password=stack.secrets[password],
        dbname=database,
        autocommit=True,
    )


def test_first_start_creates_owners_that_are_not_superusers(stack: Stack) -> None:
    for user, database in (("candelabra", "candelabra"), ("airflow", "airflow")):
        with connect(stack, user, database) as connection:
            found = connection.execute(
                "SELECT rolsuper, rolcreaterole, rolcreatedb FROM pg_roles "
                "WHERE rolname = current_user"
            ).fetchone()
            assert found == (False, user == "candelabra", False)
    for stranger in ("candelabra_reader", "candelabra_streamer"):
        with pytest.raises(psycopg.OperationalError, match="permission denied"):
            connect(stack, stranger, "airflow")
    with pytest.raises(psycopg.OperationalError, match="permission denied"):
        connect(stack, "airflow", "candelabra")


def test_postgres_is_healthy_when_it_answers_by_tcp(stack: Stack) -> None:
    kind, *program = stack.services["postgres"]["healthcheck"]["test"]
    assert kind == "CMD"

    def code(port: int) -> int:
        environment = {"PATH": str(psql_program().parent), "PGPORT": str(port)}
        return subprocess.run(program, env=environment, check=False, timeout=10).returncode

    assert code(stack.postgres_port) == 0
    assert code(steady_port()) == 2


def has_candle(url: str, symbols: Sequence[str]) -> bool:
    """Whether a candle is stored: a ready streamer may not have written one yet."""
    try:
        check_candles(url, symbols=symbols)
    except TransientError:
        return False
    return True


def test_migrating_again_succeeds_and_prints_no_password(stack: Stack) -> None:
    done = stack.run("migrate")
    assert done.returncode == 0, done.stderr
    assert stack.secrets["CANDELABRA_OWNER_PASSWORD"] not in done.stdout + done.stderr


def test_streamer_becomes_ready_writes_and_stops_on_sigterm(stack: Stack) -> None:
    before = stack.check("streamer")
    assert before.returncode == 1
    assert "Connection refused" in before.stderr
    symbols = stack.services["streamer"]["environment"]["SYMBOLS"].split(",")
    url = stack.environment("streamer")["STREAMER_DATABASE_URL"]
    stack.start("streamer")
    assert stack.wait_healthy("streamer") == "ready\n"
    wait_for(lambda: has_candle(url, symbols), timeout_s=120, what="candle")
    with pytest.raises(TransientError, match=r"the newest candle is \d+ s old; the maximum is 0 s"):
        check_candles(url, symbols=symbols, max_age_s=0)
    with connect(stack, "candelabra_reader", "candelabra") as connection:
        found = connection.execute("SELECT DISTINCT symbol FROM market.candles_1m_live").fetchall()
        assert {symbol for (symbol,) in found} <= {*symbols, "SILENTUSDT"}
    assert stack.stop("streamer") == {"streamer": 0}
    last = json.loads(tail(stack.folder / "streamer.log", lines=1))
    assert last["event"] == "streaming_stopped"


def test_silent_minutes_count_as_recent_candles(stack: Stack) -> None:
    """Without trades there is no live candle, but one row each minute."""
    with connect(stack, "candelabra", "candelabra") as connection:
        connection.execute("DELETE FROM ops.live_candles_1")
        minute_us = minute_of(time.time_ns() // 1000)
        silent = candle("SILENTUSDT", minute_us, trade_count=0)
        merge_candidates(connection, [candidate(of=silent, evidence_at_us=minute_us)])
    url = stack.environment("streamer")["STREAMER_DATABASE_URL"]
    assert check_candles(url, symbols=["SILENTUSDT"]).startswith("newest candle ")
    for symbols in (["NOSUCHUSDT"], ["NOSUCHUSDT", "*USDT"], ["*USDT"]):
        with pytest.raises(TransientError, match="no candle in the last hour"):
            check_candles(url, symbols=symbols)


def test_candles_of_other_streamers_count_only_for_patterns(stack: Stack) -> None:
    with connect(stack, "candelabra", "candelabra") as connection:
        connection.execute("DELETE FROM ops.live_candles_1")
        connection.execute(
            "INSERT INTO ops.live_candles_1 (symbol, open_time, open, high, low, close, volume, "
            "trade_count, taker_buy_volume, is_closed) "
            "VALUES ('OTHERUSDT', date_trunc('minute', now()), 1, 1, 1, 1, 1, 1, 0, false)"
        )
    url = stack.environment("streamer")["STREAMER_DATABASE_URL"]
    for symbols in (["OTHERUSDT"], ["*USDT"]):
        assert check_candles(url, symbols=symbols).startswith("newest candle ")
    with pytest.raises(TransientError, match="no candle in the last hour"):
        check_candles(url, symbols=["NOSUCHUSDT", "*BTC"])
    with connect(stack, "candelabra", "candelabra") as connection:
        connection.execute("DELETE FROM ops.live_candles_1")


DAGS = {file.stem for file in (ROOT / "dags").glob("*.py") if "@dag(" in file.read_text()}
AIRFLOW = ("airflow-api-server", "airflow-scheduler", "airflow-dag-processor", "airflow-triggerer")


@pytest.mark.long
def test_airflow_becomes_healthy_runs_dags_and_stops(stack: Stack) -> None:
    done = stack.run("airflow-init")
    assert done.returncode == 0, done.stderr[-2000:]
    pools = json.loads((ROOT / "dags" / "support" / "pools.json").read_text())
    assert all(f"{pool} created" in done.stdout for pool in pools)
    assert "candelabra_db created" in done.stdout

    for name in AIRFLOW:
        stack.start(name)
    for name in AIRFLOW:
        stack.wait_healthy(name)

    url = f"http://127.0.0.1:{stack.airflow_port}"
    password = stack.secrets["AIRFLOW_ADMIN_PASSWORD"]
    with AirflowApi(url, username="admin", password=password) as api:
        api.wait_dags(DAGS, timeout_s=120)
        for dag in DAGS - {"sync_instruments", "build_marts"}:
            api.set_paused(dag, paused=True)  # all are due and would run first
        runs = {
            "sync_instruments": api.trigger("sync_instruments", {}),
            "build_marts": api.wait_next_run("build_marts", run_type="scheduled", timeout_s=120),
        }
        for dag, run in runs.items():
            state = api.wait_run(dag, run, timeout_s=400)
            assert state == "success", api.failures(dag, run)
    with connect(stack, "candelabra_reader", "candelabra") as connection:
        assert connection.execute("SELECT count(*) > 0 FROM market.instruments").fetchone() == (
            True,
        )
        connection.execute("SELECT count(*) FROM marts.candles_1h")
    # The API server reads task logs from this folder.
    assert list((stack.folder / "airflow-logs" / "tasks").rglob("*.log"))

    # Compose stops dependents first: the scheduler before the API server.
    first = "airflow-scheduler"
    assert "airflow-api-server" in stack.services[first]["depends_on"]
    assert stack.stop(first) == {first: 0}
    others = [name for name in AIRFLOW if name != first]
    assert stack.stop(*others) == dict.fromkeys(others, 0)
