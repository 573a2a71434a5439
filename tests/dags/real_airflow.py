"""Airflow's four processes on this machine, with our DAGs, against a simulated exchange."""

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

ROOT = Path(__file__).parents[2]
STOP_S = 4.0
"""The triggerer may wait 10 s for a child that is gone; it has nothing to lose here."""


PAUSED_AT_FIRST = {"AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True"}
"""Ten DAGs whose schedules are all due would run before those that a test is about."""


@contextmanager
def real_airflow(
    folder: Path,
    *,
    metadata_url: str,
    environment: Mapping[str, str],
    at_work: Iterable[str],
    known: Iterable[str] = (),
) -> Iterator[LocalAirflow]:
    """Airflow at work, all these DAGs known; nothing of it is left afterwards.

    ``at_work`` are the DAGs that run, ``known`` those that are paused.
    """
    running = LocalAirflow(
        folder / "air flow",
        metadata_url=metadata_url,
        project_root=ROOT,
        environment={"CANDELABRA_HOME": str(folder), **PAUSED_AT_FIRST, **environment},
    )
    with running:
        running.wait_healthy(timeout_s=120)
        running.api.wait_dags({*at_work, *known}, timeout_s=120)
        for dag_id in at_work:
            running.api.set_paused(dag_id, paused=False)
        yield running
        running.stop(term_timeout_s=STOP_S)
    assert marked(running.marker) == []


def kill_a_load(airflow: LocalAirflow, database: str, *, timeout_s: float = 120) -> None:
    """Kill a task's process, as by ``kill -9``, between its candles and the ledger's entry."""
    with (
        psycopg.connect(database) as holding,
        psycopg.connect(database, autocommit=True) as looking,
    ):
        holding.execute("LOCK TABLE ops.dump_files IN EXCLUSIVE MODE")
        waiting = until(
            lambda: looking.execute(
                "SELECT pid, client_port FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                " AND datname = current_database() AND query LIKE '%INSERT INTO ops.dump_files%'"
            ).fetchone(),
            timeout_s=timeout_s,
        )
        backend, port = waiting
        (process,) = [one for one in marked(airflow.marker) if _speaks_from(one, port)]
        process.kill()
        # its server would go on once the lock is gone, and write for a client that is no more
        looking.execute("SELECT pg_terminate_backend(%s)", (backend,))


def until(found: Callable[[], Any], *, timeout_s: float) -> Any:
    """The first answer that says yes."""
    deadline_s = time.monotonic() + timeout_s
    while not (answer := found()):
        assert time.monotonic() < deadline_s, f"not so after {timeout_s:g} s"
        time.sleep(0.1)
    return answer


def _speaks_from(process: psutil.Process, port: int) -> bool:
    try:
        return any(one.laddr and one.laddr.port == port for one in process.net_connections("tcp"))
    except psutil.NoSuchProcess:
        return False
