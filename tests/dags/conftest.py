"""Airflow in this process, imported late, with its own home and metadata database.

Test modules import Airflow and ``dags`` inside functions: AIRFLOW_HOME must be set first, and only
the worker that runs these tests should spend the time.
"""

from __future__ import annotations

import importlib
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import structlog

from deploy.local.airflow_environment import sqlalchemy_url
from deploy.local.postgres import EmbeddedPostgres

ROOT = Path(__file__).parents[2]


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marker
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("airflow"))


@pytest.fixture(scope="module", autouse=True)
def _restore_logging() -> Iterator[None]:
    """Airflow reconfigures structlog and the root logger; restore them for other tests."""
    config, handlers = structlog.get_config(), logging.getLogger().handlers[:]
    yield
    structlog.configure(**config)
    logging.getLogger().handlers[:] = handlers


@pytest.fixture(scope="session")
def airflow_home() -> Iterator[Path]:
    """Set everything that Airflow reads when it is imported."""
    with tempfile.TemporaryDirectory(prefix="candelabra-airflow-") as folder:
        home = Path(folder)
        values = {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(home / "plugins"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
            "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
            "AIRFLOW__COSMOS__CACHE_DIR": str(home / "cosmos"),
            "AIRFLOW__COSMOS__ENABLE_TELEMETRY": "False",
            "AIRFLOW__COSMOS__ENABLE_MEMORY_OPTIMISED_IMPORTS": "True",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
            "DO_NOT_TRACK": "1",
            "GX_ANALYTICS_ENABLED": "false",
        }
        with pytest.MonkeyPatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("AIRFLOW")]:
                patch.delenv(name)
            for name, value in values.items():
                patch.setenv(name, value)
            importlib.import_module("airflow")
            yield home


@pytest.fixture(scope="session")
def policies(airflow_home: Path) -> ModuleType:
    """The module ``dags.support.policies``."""
    return importlib.import_module("dags.support.policies")


@pytest.fixture(scope="session")
def forms(airflow_home: Path) -> ModuleType:
    """The module ``dags.support.forms``."""
    return importlib.import_module("dags.support.forms")


@pytest.fixture(scope="session")
def dag_bag(airflow_home: Path) -> Any:
    """All DAGs of the project, parsed once as by Airflow's DAG processor."""
    from airflow.dag_processing.dagbag import DagBag

    return DagBag(ROOT / "dags")


@pytest.fixture(scope="session")
def airflow_database(airflow_home: Path, dag_bag: Any) -> None:
    """Airflow's tables with our DAGs, as ``dag.test()`` requires them."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import sync_bag_to_db
    from airflow.utils.db import initdb

    initdb()
    DagBundlesManager().sync_bundles_to_db()
    sync_bag_to_db(dag_bag, "dags-folder", None)


@pytest.fixture(scope="session")
def metadata_template(postgres: EmbeddedPostgres) -> str:
    """A PostgreSQL database migrated by Airflow, to be copied by tests that need one."""
    name = "airflow_template"
    url = sqlalchemy_url(postgres.create_database(name))
    with tempfile.TemporaryDirectory() as home:
        environment = {key: one for key, one in os.environ.items() if not key.startswith("AIRFLOW")}
        environment |= {
            "AIRFLOW_HOME": home,
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url,
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": url,
            "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        }
        command = [sys.executable, "-P", "-m", "airflow", "db", "migrate"]
        subprocess.run(command, env=environment, cwd=home, check=True, capture_output=True)
    return name


@dataclass
class DailyRun:
    """A finished run of a daily DAG.

    Attributes:
        day: of the data interval.
        deferred: whether the task ``wait`` was deferred.
    """

    day: datetime
    run: Any
    tasks: list[Any]
    deferred: bool


@pytest.fixture(scope="session")
def daily_day() -> datetime:
    """Yesterday."""
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight - timedelta(days=1)


@pytest.fixture
def daily_run(
    database_url: str,
    dag_bag: Any,
    airflow_database: None,
    daily_day: datetime,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[[str, dict[str, str]], DailyRun]]:
    """Run a daily DAG for ``daily_day``; its files are published while it waits."""
    from simulator.config import SimulatorConfig
    from simulator.server import ExchangeThread

    delay_s = 3_600.0
    config = SimulatorConfig(
        spot_symbols=("BTCUSDT",),
        um_symbols=("BTCUSDT",),
        start=daily_day,
        clock_start=daily_day + timedelta(days=1, minutes=5),
        daily_dump_delay_s=delay_s,
    )
    with ExchangeThread(config) as exchange:
        for name, value in {
            "DATABASE_URL": database_url,
            "BINANCE_REST_URL": exchange.spot_rest_url,
            "BINANCE_UM_REST_URL": exchange.um_rest_url,
            "BINANCE_CM_REST_URL": exchange.cm_rest_url,
            "BINANCE_DUMP_URL": exchange.dump_url,
            "BINANCE_DUMP_LIST_URL": exchange.dump_url,
            "CANDELABRA_HOME": str(tmp_path),
        }.items():
            monkeypatch.setenv(name, value)

        def run(dag_id: str, conf: dict[str, str]) -> DailyRun:
            from dags.support.dump_trigger import WaitForDumps

            dag = dag_bag.dags[dag_id]
            wait = dag.get_task("wait")
            monkeypatch.setattr(wait, "max_wait", timedelta(days=30))
            monkeypatch.setattr(wait, "poll_interval", timedelta(seconds=0.2))
            resumed = []
            resume = WaitForDumps.resume

            def spied(task: Any, context: Any, event: Any) -> Any:
                resumed.append(event)
                return resume(task, context, event)

            monkeypatch.setattr(WaitForDumps, "resume", spied)
            defer = WaitForDumps.defer

            def published_meanwhile(task: Any, **arguments: Any) -> Any:
                exchange.clock._start_us += round(delay_s * 1_000_000)
                return defer(task, **arguments)

            monkeypatch.setattr(WaitForDumps, "defer", published_meanwhile)
            done = dag.test(logical_date=daily_day + timedelta(days=1, hours=1), run_conf=conf)
            return DailyRun(daily_day, done, done.get_task_instances(), bool(resumed))

        yield run
