"""Four real processes: they boot, run our DAGs by asset and request, and leave nothing behind."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import psycopg
import pytest

from deploy.local.airflow import LocalAirflow
from deploy.local.postgres import EmbeddedPostgres
from include.domain.timeframes import to_us
from include.errors import PermanentError
from simulator.config import SimulatorConfig
from simulator.server import ExchangeThread
from tests.dags.real_airflow import real_airflow

pytestmark = pytest.mark.timeout(400)

ROOT = Path(__file__).parents[2]
HOOK_SECRET = "s3cret-part-of-the-url"
DAGS = [
    "backfill_history", "build_marts", "check_quality", "import_files", "load_daily_dumps",
    "maintain_storage", "reconcile_candles", "repair_gaps", "sync_instruments",
]  # fmt: skip


@pytest.fixture(scope="module")
def exchange() -> Iterator[ExchangeThread]:
    config = SimulatorConfig(spot_symbols=("BTCUSDT", "ETHUSDT"), um_symbols=("BTCUSDT",))
    with ExchangeThread(config) as running:
        yield running


@pytest.fixture(scope="module")
def metadata_url(postgres: EmbeddedPostgres) -> Iterator[str]:
    yield postgres.create_database("airflow")
    postgres.drop_database("airflow")


@pytest.fixture(scope="module")
def candelabra_url(postgres: EmbeddedPostgres, _template: str) -> Iterator[str]:
    yield postgres.create_database("real_airflow", template=_template)
    postgres.drop_database("real_airflow")


class Webhook(ThreadingHTTPServer):
    """Keeps what is posted to it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _WebhookHandler)
        self.alerts: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook/{HOOK_SECRET}"

    def wait(self, **fields: object) -> dict[str, Any]:
        """The alert with these fields, once it is there."""
        deadline_s = time.monotonic() + 60
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
        """Keep quiet."""


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
            "BINANCE_DUMP_URL": exchange.dump_url,
            "BINANCE_DUMP_LIST_URL": exchange.dump_url,
            "ALERT_WEBHOOK_URL": webhook.url,
        },
        dags=DAGS,
    ) as running:
        yield running


def test_nobody_gets_in_without_the_password(airflow):
    with httpx.Client(base_url=airflow.url, trust_env=False) as stranger:
        assert stranger.get("/api/v2/dags").status_code == 401
        wrong = {"username": airflow.username, "password": "guess"}
        assert stranger.post("/auth/token", json=wrong).status_code == 401
    assert airflow.api.dag_ids() == set(DAGS)
    for file in (airflow.home / "passwords.json", airflow.home / "secrets.json"):
        assert file.stat().st_mode & 0o077 == 0


def test_pools_have_the_sizes_of_their_file(airflow):
    wanted = json.loads((ROOT / "dags" / "pools.json").read_text())
    pools = {pool["name"]: pool for pool in airflow.api._ask("GET", "/api/v2/pools")["pools"]}
    assert {name: pools[name]["slots"] for name in wanted} == {
        name: pool["slots"] for name, pool in wanted.items()
    }


def test_a_task_that_fails_and_its_run_are_told_to_the_webhook(airflow, webhook):
    run_id = airflow.api.trigger("backfill_history", {"symbols": "NOSUCHUSDT"})

    assert airflow.api.wait_run("backfill_history", run_id, timeout_s=60) == "failed"
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


def test_a_backfill_loads_the_exchanges_candles_and_wakes_the_marts(
    airflow, exchange, candelabra_url
):
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    start, end = today - timedelta(days=2), today - timedelta(hours=1)
    known = [run.run_id for run in airflow.api.runs("build_marts")]
    conf = {"symbols": "BTCUSDT", "from": start.isoformat(), "to": end.isoformat()}

    run_id = airflow.api.trigger("backfill_history", conf)

    state = airflow.api.wait_run("backfill_history", run_id, timeout_s=90)
    assert state == "success", airflow.api.failures("backfill_history", run_id)
    loads = [
        task
        for task in airflow.api.task_states("backfill_history", run_id)
        if task.task_id == "load"
    ]
    assert loads
    assert all("BTCUSDT" in task.name for task in loads)

    marts_id = airflow.api.wait_next_run(
        "build_marts", run_type="asset_triggered", known=known, timeout_s=60
    )
    state = airflow.api.wait_run("build_marts", marts_id, timeout_s=60)
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

    again = airflow.api.trigger("backfill_history", conf)
    assert airflow.api.wait_run("backfill_history", again, timeout_s=60) == "success"
    states = {task.name: task.state for task in airflow.api.task_states("backfill_history", again)}
    # What is loaded is not loaded again.
    assert states == {"plan": "success", "load": "skipped", "summarise": "success"}


def test_two_runs_over_the_same_span_at_once_do_no_harm(airflow, exchange, candelabra_url):
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    start, end = today - timedelta(days=1), today
    conf = {"symbols": "ETHUSDT", "from": start.isoformat(), "to": end.isoformat()}
    runs = [airflow.api.trigger("backfill_history", conf) for _ in range(2)]
    for run_id in runs:
        state = airflow.api.wait_run("backfill_history", run_id, timeout_s=90)
        assert state == "success", airflow.api.failures("backfill_history", run_id)
    with psycopg.connect(candelabra_url) as connection:
        stored = connection.execute(
            "SELECT count(*), max(revision) FROM market.candles_1m"
            " WHERE symbol = 'ETHUSDT' AND open_time >= %s AND open_time < %s",
            (start, end),
        ).fetchone()
    assert stored == (24 * 60, 0)


def test_a_form_that_cannot_be_meant_is_refused_before_a_run_starts(airflow):
    with pytest.raises(PermanentError, match="symbols"):
        airflow.api.trigger("backfill_history", {})


def test_a_permanent_error_fails_at_once_and_is_told(airflow):
    conf = {"symbols": "NOSUCHUSDT", "from": "2024-01-02", "to": "2024-01-01"}
    run_id = airflow.api.trigger("backfill_history", conf)
    assert airflow.api.wait_run("backfill_history", run_id, timeout_s=60) == "failed"
    (plan,) = [
        task
        for task in airflow.api.task_states("backfill_history", run_id)
        if task.task_id == "plan"
    ]
    assert (plan.state, plan.try_number) == ("failed", 1)
    assert "'from' should be before 'to'" in airflow.api.failures("backfill_history", run_id)
