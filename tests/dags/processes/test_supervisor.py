"""Killed and duplicate supervisors, processes that die, and interrupted tasks."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from deploy.local.airflow import LocalAirflow
from deploy.local.processes import end_marked, marked
from include.errors import PermanentError
from tests.dags.processes.real_airflow import PAUSED_AT_CREATION, until

pytestmark = [pytest.mark.timeout(900), pytest.mark.long]

ROOT = Path(__file__).parents[3]


KILLED_SUPERVISOR = textwrap.dedent(
    """
    import os, signal, sys
    from pathlib import Path
    from deploy.local.airflow import LocalAirflow
    home, url, root = sys.argv[1:]
    airflow = LocalAirflow(
        Path(home), metadata_url=url, project_root=Path(root),
        environment={"AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True"},
    )
    airflow.prepare()
    airflow.start()
    print(airflow.marker, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
    """
)


@pytest.fixture
def orphaned(tmp_path, postgres, metadata_template) -> Iterator[tuple[Path, str, str]]:
    """Return home, metadata URL and marker of an Airflow whose supervisor was killed."""
    home = tmp_path / "airflow"
    url = postgres.create_database("airflow_orphans", template=metadata_template)
    done = subprocess.run(
        [sys.executable, "-c", KILLED_SUPERVISOR, str(home), url, str(ROOT)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    marker = done.stdout.splitlines()[-1]
    yield home, url, marker
    end_marked(marker, term_timeout_s=5)
    postgres.drop_database("airflow_orphans")


def run_with_a_running_task(airflow: LocalAirflow, dag_id: str) -> str | None:
    for run in airflow.api.runs(dag_id):
        if any(task.state == "running" for task in airflow.api.task_states(dag_id, run.run_id)):
            return run.run_id
    return None


def is_restarted(airflow: LocalAirflow, before: dict[str, int], names: Sequence[str]) -> bool:
    airflow.check()
    return all(airflow.pids[name] != before[name] for name in names)


def test_orphans_and_tasks_stop_and_the_next_start_resumes_the_run(orphaned, database_url):
    home, url, marker = orphaned
    assert len(marked(marker)) >= 4
    airflow = LocalAirflow(
        home,
        metadata_url=url,
        project_root=ROOT,
        environment={
            "DATABASE_URL": database_url,
            "CANDELABRA_HOME": str(home.parent),
            **PAUSED_AT_CREATION,
        },
    )
    with airflow:
        assert marked(marker) == []
        second = LocalAirflow(home, metadata_url=url, project_root=ROOT, environment={})
        with pytest.raises(PermanentError, match="another Candelabra runs"):
            second.prepare()
        second.stop()
        airflow.wait_healthy(timeout_s=300)
        airflow.api.wait_dags(["build_marts"], timeout_s=300)
        airflow.api.set_paused("build_marts", paused=False)
        airflow.api.trigger("build_marts", {})
        run_id = until(lambda: run_with_a_running_task(airflow, "build_marts"), timeout_s=300)
        processes = [psutil.Process(pid) for pid in airflow.pids.values()]
        processes += [below for one in processes for below in one.children(recursive=True)]
        # Killed processes are started again, and the others go on running.
        before = airflow.pids
        killed = ("airflow triggerer", "airflow scheduler")
        for name in killed:
            os.kill(before[name], signal.SIGKILL)
        until(lambda: is_restarted(airflow, before, killed), timeout_s=120)
        airflow.wait_healthy(timeout_s=300)
        assert {name for name, pid in airflow.pids.items() if pid != before[name]} == {*killed}
        processes += [psutil.Process(airflow.pids[name]) for name in killed]
        began_s = time.monotonic()
    assert time.monotonic() - began_s < 60
    assert marked(airflow.marker) == []
    # Also by process id: tasks, workers and the API server rename themselves.
    assert len(processes) > 6
    assert [process for process in processes if process.is_running()] == []
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", airflow.port)) != 0

    # The next start resumes the interrupted run.
    with airflow:
        airflow.wait_healthy(timeout_s=300)
        assert airflow.api.wait_run("build_marts", run_id, timeout_s=400) == "success"
        airflow.stop(term_timeout_s=4)
