"""Run Airflow's four processes with our DAGs, and wait for conditions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import psycopg

from deploy.local.airflow import LocalAirflow
from deploy.local.processes import marked

ROOT = Path(__file__).parents[3]
STOP_S = 4.0
"""The triggerer may wait 10 s for a child that has ended; killing it loses nothing here."""

PAUSED_AT_CREATION = {"AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True"}
"""Otherwise ten DAGs are due immediately and run before those under test."""


@contextmanager
def real_airflow(
    folder: Path,
    *,
    metadata_url: str,
    environment: Mapping[str, str],
    active: Iterable[str],
    paused: Iterable[str] = (),
) -> Iterator[LocalAirflow]:
    """Run Airflow until these DAGs are parsed; check that no process survives the block.

    Args:
        active: DAGs to unpause.
        paused: further DAGs to wait for.
    """
    running = LocalAirflow(
        folder / "air flow",
        metadata_url=metadata_url,
        project_root=ROOT,
        environment={"CANDELABRA_HOME": str(folder), **PAUSED_AT_CREATION, **environment},
    )
    with running:
        running.wait_healthy(timeout_s=300)
        running.api.wait_dags({*active, *paused}, timeout_s=300)
        for dag_id in active:
            running.api.set_paused(dag_id, paused=False)
        yield running
        running.stop(term_timeout_s=STOP_S)
    assert marked(running.marker) == []


def kill_a_load(airflow: LocalAirflow, database: str, *, timeout_s: float = 300) -> None:
    """Kill a task's process after it stored candles and before it wrote the ledger."""
    with (
        psycopg.connect(database) as holding,
        psycopg.connect(database, autocommit=True) as observer,
    ):
        holding.execute("LOCK TABLE ops.dump_files IN EXCLUSIVE MODE")
        waiting = until(
            lambda: observer.execute(
                "SELECT pid, client_port FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                " AND datname = current_database() AND query LIKE '%INSERT INTO ops.dump_files%'"
            ).fetchone(),
            timeout_s=timeout_s,
        )
        backend, port = waiting
        (process,) = [one for one in marked(airflow.marker) if _uses_port(one, port)]
        process.kill()
        # Otherwise its backend would complete the INSERT once the lock is released.
        observer.execute("SELECT pg_terminate_backend(%s)", (backend,))


def until(found: Callable[[], Any], *, timeout_s: float) -> Any:
    """Poll until ``found`` returns a true value; return it."""
    deadline_s = time.monotonic() + timeout_s
    while not (answer := found()):
        assert time.monotonic() < deadline_s, f"not true within {timeout_s:g} s"
        time.sleep(0.1)
    return answer


def _uses_port(process: psutil.Process, port: int) -> bool:
    try:
        return any(one.laddr and one.laddr.port == port for one in process.net_connections("tcp"))
    except psutil.NoSuchProcess:
        return False
