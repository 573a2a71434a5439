"""A task checks once for dump files; the triggerer then polls until they are published."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from include.errors import PermanentError, TransientError
from include.jobs.klines.pieces import DayGroup, DayPiece
from include.jobs.task_json import to_json

NOW = datetime.now(UTC)
OLD_US, DAY_US = (int((NOW - timedelta(days=days)).timestamp()) * 1_000_000 for days in (9, 1))
DAYS = (DayPiece("X", "x", DAY_US, "b.zip"), DayPiece("X", "x", DAY_US, "c.zip"))
PLAN = to_json(
    [
        DayGroup("x", (DayPiece("X", "x", OLD_US, "old.zip"), DayPiece("X", "x", DAY_US, "a.zip"))),
        DayGroup("x", DAYS),
    ]
)
"""``old.zip`` belongs to a day before the run's own."""


@pytest.fixture
def dump_trigger(policies):
    from dags.support import dump_trigger

    return dump_trigger


class Run:
    """A DAG run whose day ended at ``end``."""

    def __init__(self, end: datetime) -> None:
        self.data_interval_start, self.data_interval_end = end - timedelta(days=1, seconds=1), end


class Site:
    """Returns the given lists of missing files in turn, then repeats the last."""

    def __init__(self, *answers: list[str] | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[list[str]] = []

    def __call__(self, *, settings: object, paths: list[str]) -> list[str]:
        self.asked.append(list(paths))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def site(monkeypatch) -> Callable[..., Site]:
    def answers(*given: list[str] | Exception) -> Site:
        made = Site(*given)
        monkeypatch.setattr("include.jobs.klines.daily.unpublished", made)
        return made

    return answers


def execute(dump_trigger, *, end: datetime = NOW, **options):
    task = dump_trigger.WaitForDumps(task_id="wait", plan=PLAN, **options)
    return task.execute({"dag_run": Run(end)})


def fired(dump_trigger, *, deadline: datetime, poll_s: float = 0.01, files: int = 2):
    """Run a trigger that waits for two files and return its event."""
    trigger = dump_trigger.DumpTrigger(
        ["a.zip", "b.zip"], deadline.isoformat(), poll_s, files=files
    )

    async def first() -> object:
        async with asyncio.timeout(30):
            return (await anext(trigger.run())).payload

    return asyncio.run(first())


def test_task_returns_when_all_files_are_published(dump_trigger, site):
    asked = site([])
    assert execute(dump_trigger) == {"files": 3, "missing": 0}
    assert asked.asked == [["a.zip", "b.zip", "c.zip"]]


def test_task_defers_with_missing_files_and_deadline(dump_trigger, site):
    from airflow.sdk.exceptions import TaskDeferred

    site(["b.zip"])
    with pytest.raises(TaskDeferred) as deferred:
        execute(dump_trigger, max_wait=timedelta(hours=3), poll_interval=timedelta(minutes=2))
    assert deferred.value.method_name == "resume"
    path, arguments = deferred.value.trigger.serialize()
    assert path == "dags.support.dump_trigger.DumpTrigger"
    assert arguments == {
        "paths": ["b.zip"],
        "deadline": (NOW + timedelta(hours=3)).isoformat(),
        "poll_s": 120.0,
        "files": 3,
    }


def test_task_does_not_wait_for_files_of_a_past_day(dump_trigger, site):
    site(["b.zip"])
    assert execute(dump_trigger, end=NOW - timedelta(days=2)) == {"files": 3, "missing": 1}


def test_trigger_asks_only_for_files_that_are_still_missing(dump_trigger, site):
    asked = site(["a.zip", "b.zip"], ["b.zip"], [])
    assert fired(dump_trigger, deadline=NOW + timedelta(hours=1)) == {"missing": []}
    assert asked.asked == [["a.zip", "b.zip"], ["a.zip", "b.zip"], ["b.zip"]]


def test_trigger_lists_missing_files_at_the_deadline(dump_trigger, site):
    site(["b.zip"])
    event = fired(dump_trigger, deadline=datetime.now(UTC) + timedelta(seconds=0.05))
    assert event == {"missing": ["b.zip"]}


def test_trigger_waits_less_for_late_files_than_for_all(dump_trigger, site, monkeypatch):
    monkeypatch.setattr(dump_trigger, "LATE_FILES_WAIT", timedelta(seconds=0.05))
    site(["b.zip"])
    event = fired(dump_trigger, deadline=NOW + timedelta(hours=1), files=3)
    assert event == {"missing": ["b.zip"]}


def test_task_defers_when_the_site_does_not_answer(dump_trigger, site):
    from airflow.sdk.exceptions import TaskDeferred

    site(TransientError("503"))
    with pytest.raises(TaskDeferred) as deferred:
        execute(dump_trigger)
    assert deferred.value.trigger.paths == ["a.zip", "b.zip", "c.zip"]


def test_trigger_retries_when_the_site_does_not_answer(dump_trigger, site):
    asked = site(TransientError("503"), [])
    assert fired(dump_trigger, deadline=NOW + timedelta(hours=1)) == {"missing": []}
    assert len(asked.asked) == 2


def test_task_fails_with_the_message_of_a_site_that_refuses(dump_trigger, site):
    site(PermanentError("403: this region is blocked"))
    event = fired(dump_trigger, deadline=NOW + timedelta(hours=1))
    task = dump_trigger.WaitForDumps(task_id="wait", plan=PLAN)
    with pytest.raises(PermanentError, match="blocked"):
        task.resume({"dag_run": Run(NOW)}, event)


def test_task_resumes_and_counts_missing_files(dump_trigger):
    task = dump_trigger.WaitForDumps(task_id="wait", plan=PLAN)
    assert task.resume({"dag_run": Run(NOW)}, {"missing": ["c.zip"]}) == {"files": 3, "missing": 1}
