"""Airflow's four processes on this machine, with our DAGs, against a simulated exchange."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from deploy.local.airflow import LocalAirflow
from deploy.local.processes import marked

ROOT = Path(__file__).parents[2]
STOP_S = 4.0
"""The triggerer may wait 10 s for a child that is gone; it has nothing to lose here."""


@contextmanager
def real_airflow(
    folder: Path, *, metadata_url: str, environment: Mapping[str, str], dags: Iterable[str]
) -> Iterator[LocalAirflow]:
    """Airflow at work, all its DAGs known; nothing of it is left afterwards."""
    running = LocalAirflow(
        folder / "air flow",
        metadata_url=metadata_url,
        project_root=ROOT,
        environment={"CANDELABRA_HOME": str(folder), **environment},
    )
    with running:
        running.wait_healthy(timeout_s=120)
        running.api.wait_dags(dags, timeout_s=60)
        yield running
        running.stop(term_timeout_s=STOP_S)
    assert marked(running.marker) == []
