"""What goes wrong with processes: killed supervisors, two of them, deaths, tasks cut short."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from deploy.local.airflow import LocalAirflow
from deploy.local.processes import end_marked, marked
from include.errors import PermanentError
from tests.dags.real_airflow import PAUSED_AT_FIRST, until

pytestmark = pytest.mark.timeout(600)

ROOT = Path(__file__).parents[2]


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
def orphaned(tmp_path, postgres) -> Iterator[tuple[Path, str, str]]:
    """Home, metadata URL and marker of an Airflow whose supervisor was killed."""
    home = tmp_path / "airflow"
    url = postgres.create_database("airflow_orphans")
    done = subprocess.run(
        [sys.executable, "-c", KILLED_SUPERVISOR, str(home), url, str(ROOT)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
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


def test_orphans_end_deaths_are_told_tasks_stop_with_the_rest_and_go_on_at_the_next_start(
    orphaned, database_url
):
    home, url, marker = orphaned
    assert len(marked(marker)) >= 4
    heir = LocalAirflow(
        home,
        metadata_url=url,
        project_root=ROOT,
        environment={
            "DATABASE_URL": database_url,
            "CANDELABRA_HOME": str(home.parent),
            **PAUSED_AT_FIRST,
        },
    )
    with heir:
        assert marked(marker) == []
        second = LocalAirflow(home, metadata_url=url, project_root=ROOT, environment={})
        with pytest.raises(PermanentError, match="another Candelabra runs"):
            second.prepare()
        second.stop()
        heir.wait_healthy(timeout_s=120)
        heir.api.wait_dags(["build_marts"], timeout_s=120)
        heir.api.set_paused("build_marts", paused=False)
        heir.api.trigger("build_marts", {})
        run_id = until(lambda: run_with_a_running_task(heir, "build_marts"), timeout_s=120)
        processes = [psutil.Process(pid) for pid in heir.pids.values()]
        processes += [below for one in processes for below in one.children(recursive=True)]
        os.kill(heir.pids["airflow triggerer"], signal.SIGKILL)
        until(heir.exited, timeout_s=60)
        with pytest.raises(PermanentError, match="airflow triggerer was killed by SIGKILL"):
            heir.check()
        begun = time.monotonic()
    assert time.monotonic() - begun < 30
    assert marked(heir.marker) == []
    # The same without the marker; a task, its worker and the API server rename themselves.
    assert len(processes) > 6
    assert [process for process in processes if process.is_running()] == []
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", heir.port)) != 0

    # The next start takes up what was cut.
    with heir:
        heir.wait_healthy(timeout_s=120)
        assert heir.api.wait_run("build_marts", run_id, timeout_s=200) == "success"
        heir.stop(term_timeout_s=4)  # how it stops was seen above
