"""Airflow's processes, played by small programs: started again, and stopped in time."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local import airflow as module
from deploy.local.airflow import LocalAirflow
from deploy.local.processes import marked
from include.backoff import Backoff
from include.errors import PermanentError

DEAF = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print('up', flush=True); time.sleep(600)"
)


@pytest.fixture
def airflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalAirflow]:
    monkeypatch.setattr(module, "airflow_command", lambda *_: [sys.executable, "-c", DEAF])
    found = LocalAirflow(
        tmp_path / "airflow",
        metadata_url="postgresql://a@127.0.0.1/airflow",
        project_root=tmp_path,
        environment={},
    )
    found.start()
    for restarter in found._restarters:
        restarter._backoff = Backoff(0.01, 0.01)
    yield found
    found.stop(term_timeout_s=0.0)


def wait_until_up(airflow: LocalAirflow, name: str) -> None:
    deadline_s = time.monotonic() + 60
    child = next(child for child in airflow._children if child.name == name)
    while "up" not in child.output():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_killed_scheduler_is_started_again_alone(airflow: LocalAirflow) -> None:
    before = airflow.pids
    os.kill(before["airflow scheduler"], signal.SIGKILL)
    deadline_s = time.monotonic() + 60
    while airflow.pids["airflow scheduler"] == before["airflow scheduler"]:
        airflow.check()
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    after = airflow.pids
    assert {name for name in after if after[name] != before[name]} == {"airflow scheduler"}
    assert len(marked(airflow.marker)) == 4


def test_scheduler_that_dies_each_time_is_given_up_and_named(airflow: LocalAirflow) -> None:
    deadline_s = time.monotonic() + 60
    while not airflow.keep():
        with contextlib.suppress(ProcessLookupError):
            os.kill(airflow.pids["airflow scheduler"], signal.SIGKILL)
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    with pytest.raises(PermanentError, match="airflow scheduler ended 5 times"):
        airflow.check()
    assert len(marked(airflow.marker)) == 3


def test_processes_that_ignore_sigterm_are_stopped_in_seven_seconds(airflow: LocalAirflow) -> None:
    for name in airflow.pids:
        wait_until_up(airflow, name)
    began_s = time.monotonic()
    airflow.stop()
    assert time.monotonic() - began_s < 7
    assert marked(airflow.marker) == []
