"""Airflow's four real processes run our DAGs, triggered by request, asset and file."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import psycopg
import pytest

from deploy.local.airflow import LocalAirflow
from deploy.local.postgres import EmbeddedPostgres
from include.domain.timeframes import to_us
from include.errors import PermanentError
from simulator.config import SimulatorConfig
from simulator.server import ExchangeThread
from tests.dags.processes.real_airflow import real_airflow, until

pytestmark = [pytest.mark.timeout(900), pytest.mark.long]

ROOT = Path(__file__).parents[3]
CLOCK_START = datetime(2026, 11, 20, 6, tzinfo=UTC)
"""In the middle of a month, when only daily files exist."""
TODAY = datetime(2026, 11, 20, tzinfo=UTC)
HOOK_SECRET = "s3cret-part-of-the-url"
DAGS = [
    "audit_marts", "backfill_history", "build_marts", "check_everything", "check_quality",
    "import_files", "load_daily_dumps", "maintain_storage", "reconcile_candles", "repair_gaps",
    "sync_derivatives", "sync_instruments",
]  # fmt: skip


@pytest.fixture(scope="module")
def exchange() -> Iterator[ExchangeThread]:
    config = SimulatorConfig(
        clock_start=CLOCK_START, spot_symbols=("BTCUSDT", "ETHUSDT"), um_symbols=("BTCUSDT",)
    )
    with ExchangeThread(config) as running:
        yield running


@pytest.fixture(scope="module")
def metadata_url(postgres: EmbeddedPostgres, metadata_template: str) -> Iterator[str]:
    yield postgres.create_database("airflow", template=metadata_template)
    postgres.drop_database("airflow")


@pytest.fixture(scope="module")
def candelabra_url(postgres: EmbeddedPostgres, _template: str) -> Iterator[str]:
    yield postgres.create_database("real_airflow", template=_template)
    postgres.drop_database("real_airflow")


class Webhook(ThreadingHTTPServer):
    """Records the alerts that it receives."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _WebhookHandler)
        self.alerts: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook/{HOOK_SECRET}"

    def wait(self, **fields: object) -> dict[str, Any]:
        """Wait for an alert with these fields."""
        deadline_s = time.monotonic() + 120
        while time.monotonic() < deadline_s:
            for alert in list(self.alerts):
                if fields.items() <= alert.items():
                    return alert
            time.sleep(0.1)
        raise AssertionError(f"no alert with {fields} among {self.alerts}")


class _WebhookHandler(BaseHTTPRequestHandler):
    server: Webhook

    def do_POST(self) -> None:
        assert self.path.endswith(HOOK_SECRET)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.alerts.append(json.loads(body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture(scope="module")
def webhook() -> Iterator[Webhook]:
    with Webhook() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join(timeout=10)


@pytest.fixture(scope="module")
def airflow(
    tmp_path_factory, metadata_url, candelabra_url, exchange, webhook
) -> Iterator[LocalAirflow]:
    with real_airflow(
        tmp_path_factory.mktemp("state"),
        metadata_url=metadata_url,
        environment={
            "DATABASE_URL": candelabra_url,
            "BINANCE_REST_URL": exchange.spot_rest_url,
            "BINANCE_UM_REST_URL": exchange.um_rest_url,
            "BINANCE_CM_REST_URL": exchange.cm_rest_url,
            "BINANCE_DUMP_URL": exchange.dump_url,
            "BINANCE_DUMP_LIST_URL": exchange.dump_url,
            "ALERT_WEBHOOK_URL": webhook.url,
        },
        active=["backfill_history", "build_marts", "import_files", "load_daily_dumps"],
        paused=DAGS,
    ) as running:
        skip_first_build(running)
        drop_files(inbox_of(running))
        yield running


def skip_first_build(airflow: LocalAirflow) -> None:
    """End the scheduled build that is due at the start; it would build empty marts for a minute."""
    run_id = airflow.api.wait_next_run("build_marts", run_type="scheduled", timeout_s=300)
    path = f"/api/v2/dags/build_marts/dagRuns/{quote(run_id, safe='')}"
    airflow.api._call("PATCH", path, json={"state": "failed"})


def inbox_of(airflow: LocalAirflow) -> Path:
    """Return its inbox, below CANDELABRA_HOME."""
    return airflow.home.parent / "inbox"


def drop_files(inbox: Path) -> None:
    """Drop a file of three klines and half a row, and a file of another interval."""
    at_ms = 1_735_689_600_000  # 2025-01-01
    rows = [
        f"{at},1,2,1,2,3,{at + 59_999},4,5,1,1,0\n"
        for at in range(at_ms, at_ms + 3 * 60_000, 60_000)
    ]
    inbox.mkdir(exist_ok=True)
    (inbox / "ABC-1m-2025-01-01.csv").write_text("".join([*rows, "1735689780000,1\n"]))
    (inbox / "ABC-5m-2025-01-01.csv").write_text(rows[0])


def test_login_requires_the_password(airflow):
    with httpx.Client(base_url=airflow.url, trust_env=False) as anonymous:
        assert anonymous.get("/api/v2/dags").status_code == 401
        wrong = {"username": airflow.username, "password": "guess"}
        assert anonymous.post("/auth/token", json=wrong).status_code == 401
    assert airflow.api.dag_ids() == set(DAGS)
    for file in (airflow.home / "passwords.json", airflow.home / "secrets.json"):
        assert file.stat().st_mode & 0o077 == 0


def test_pools_have_the_configured_sizes(airflow):
    wanted = json.loads((ROOT / "dags" / "support" / "pools.json").read_text())
    pools = {pool["name"]: pool for pool in airflow.api._call("GET", "/api/v2/pools")["pools"]}
    assert {name: pools[name]["slots"] for name in wanted} == {
        name: pool["slots"] for name, pool in wanted.items()
    }


def test_failed_task_and_run_are_sent_to_the_webhook_without_retry(airflow, webhook):
    run_id = airflow.api.trigger("backfill_history", {"symbols": "NOSUCHUSDT"})

    assert airflow.api.wait_run("backfill_history", run_id, timeout_s=300) == "failed"
    of_task = webhook.wait(event="task_failed", run_id=run_id)
    of_run = webhook.wait(event="run_failed", run_id=run_id)

    assert (of_task["dag_id"], of_task["task_id"]) == ("backfill_history", "plan")
    assert (of_task["try_number"], of_task["max_tries"]) == (1, 5)
    assert of_task["error_class"] == "UnknownSymbolError"
    assert "NOSUCHUSDT" in of_task["error"]
    assert "`plan` of `backfill_history`" in of_task["text"]
    assert of_task["log_url"].startswith(airflow.url)
    assert of_run["error"] == "task_failure"
    assert f"{airflow.url}/dags/backfill_history/runs/manual" in of_run["log_url"]
    logs = [file for file in (airflow.home / "logs").rglob("*") if file.is_file()]
    assert any("alert_sent" in file.read_text(errors="replace") for file in logs)
    assert [file for file in logs if HOOK_SECRET in file.read_text(errors="replace")] == []


def test_backfill_loads_the_exchanges_candles_and_triggers_the_marts(
    airflow, exchange, candelabra_url
):
    start, end = TODAY - timedelta(days=2), TODAY - timedelta(hours=1)
    known = [run.run_id for run in airflow.api.runs("build_marts")]
    conf = {"symbols": "BTCUSDT", "from": start.isoformat(), "to": end.isoformat()}

    run_id = airflow.api.trigger("backfill_history", conf)

    state = airflow.api.wait_run("backfill_history", run_id, timeout_s=400)
    assert state == "success", airflow.api.failures("backfill_history", run_id)
    loads = [
        task
        for task in airflow.api.task_states("backfill_history", run_id)
        if task.task_id == "load"
    ]
    assert loads
    assert all("BTCUSDT" in task.name for task in loads)

    marts_id = airflow.api.wait_next_run(
        "build_marts", run_type="asset_triggered", known=known, timeout_s=400
    )
    state = airflow.api.wait_run("build_marts", marts_id, timeout_s=300)
    assert state == "success", airflow.api.failures("build_marts", marts_id)

    query = {
        "market": "spot",
        "symbol": "BTCUSDT",
        "interval": "1h",
        "startTime": to_us(start) // 1000,
        "endTime": to_us(end) // 1000 - 1,
    }
    rows = httpx.get(f"{exchange.control_url}/sim/klines", params=query, trust_env=False).json()
    expected = [
        (datetime.fromtimestamp(row[0] / 1000, UTC), *map(Decimal, row[1:6]), row[8])
        for row in rows
    ]
    with psycopg.connect(candelabra_url) as connection:
        built = connection.execute(
            "SELECT open_time, open, high, low, close, volume, trade_count"
            " FROM marts.candles_1h WHERE symbol = 'BTCUSDT' AND is_complete ORDER BY open_time"
        ).fetchall()
    assert len(built) == 47
    assert built == expected

    password = str(urlsplit(candelabra_url).password)
    path = f"/api/v2/dags/build_marts/dagRuns/{quote(marts_id, safe='')}/taskInstances"
    rendered = [json.dumps(airflow.api._call("GET", path))]
    logs = (airflow.home / "logs" / "tasks" / "dag_id=build_marts").rglob("*.log")
    texts = rendered + [file.read_text(errors="replace") for file in logs]
    assert len(texts) > 4
    assert [text for text in texts if password in text] == []

    again = airflow.api.trigger("backfill_history", conf)
    assert airflow.api.wait_run("backfill_history", again, timeout_s=300) == "success"
    states = {task.name: task.state for task in airflow.api.task_states("backfill_history", again)}
    # Stored minutes are not loaded again.
    assert states == {"plan": "success", "load": "skipped", "summarise": "success"}


def test_concurrent_runs_over_one_span_store_each_minute_once(airflow, exchange, candelabra_url):
    start, end = TODAY - timedelta(days=1), TODAY
    conf = {"symbols": "ETHUSDT", "from": start.isoformat(), "to": end.isoformat()}
    runs = [airflow.api.trigger("backfill_history", conf) for _ in range(2)]
    for run_id in runs:
        state = airflow.api.wait_run("backfill_history", run_id, timeout_s=400)
        assert state == "success", airflow.api.failures("backfill_history", run_id)
    with psycopg.connect(candelabra_url) as connection:
        stored = connection.execute(
            "SELECT count(*), max(revision) FROM market.candles_1m"
            " WHERE symbol = 'ETHUSDT' AND open_time >= %s AND open_time < %s",
            (start, end),
        ).fetchone()
    assert stored == (24 * 60, 0)


def test_invalid_form_is_rejected_before_a_run_starts(airflow):
    with pytest.raises(PermanentError, match="symbols"):
        airflow.api.trigger("backfill_history", {})


def test_inbox_files_are_loaded_or_rejected_with_reasons(airflow, candelabra_url):
    inbox = inbox_of(airflow)
    until(lambda: (inbox / "done").exists() and (inbox / "failed").exists(), timeout_s=300)
    run_id = airflow.api.runs("import_files")[-1].run_id  # the first

    assert airflow.api.wait_run("import_files", run_id, timeout_s=300) == "success"

    tasks = airflow.api.task_states("import_files", run_id)
    assert {task.name: task.state for task in tasks} == {
        "wait": "success",
        "load [ABC-1m-2025-01-01.csv]": "success",
        "load [ABC-5m-2025-01-01.csv]": "failed",
        "summarise": "success",
    }
    names = {file.relative_to(inbox).as_posix() for file in inbox.rglob("*") if file.is_file()}
    assert names == {
        "done/ABC-1m-2025-01-01.csv",
        "done/ABC-1m-2025-01-01.csv.reason.txt",
        "failed/ABC-5m-2025-01-01.csv",
        "failed/ABC-5m-2025-01-01.csv.reason.txt",
    }
    with psycopg.connect(candelabra_url) as connection:
        stored = connection.execute(
            "SELECT count(*), max(close), max(status), max(source) FROM market.candles_1m"
            " WHERE symbol = 'ABC'"
        ).fetchone()
        rejected = connection.execute("SELECT file, line, raw FROM ops.rejected_rows").fetchall()
        files = connection.execute(
            "SELECT verdict, rows, rejected FROM ops.dump_files WHERE symbol = 'ABC'"
        ).fetchall()
    assert stored == (3, 2, "unconfirmed", "file")
    assert rejected == [("ABC/ABC-1m-2025-01-01.csv", 4, "1735689780000,1")]
    assert files == [("imported", 3, 1)]


def test_airflow_backfill_loads_past_days_from_their_files(airflow, candelabra_url):
    days = [TODAY - timedelta(days=days) for days in (3, 2)]
    done = subprocess.run(
        [
            sys.executable, "-m", "airflow", "backfill", "create", "--dag-id", "load_daily_dumps",
            "--from-date", days[0].isoformat(), "--to-date", days[1].isoformat(),
            "--dag-run-conf", json.dumps({"symbols": "BTCUSDT.P"}),
        ],
        env=airflow._environment(), cwd=airflow.home, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]

    runs = [run for run in airflow.api.runs("load_daily_dumps") if run.run_type == "backfill"]
    assert len(runs) == 2
    for run in runs:
        state = airflow.api.wait_run("load_daily_dumps", run.run_id, timeout_s=300)
        assert state == "success", airflow.api.failures("load_daily_dumps", run.run_id)

    with psycopg.connect(candelabra_url) as connection:
        stored = connection.execute(
            "SELECT (open_time AT TIME ZONE 'UTC')::date, source, count(*) FROM market.candles_1m"
            " WHERE symbol = 'BTCUSDT.P' GROUP BY 1, 2 ORDER BY 1"
        ).fetchall()
    assert stored == [(day.date(), "dump_daily", 1_440) for day in days]
