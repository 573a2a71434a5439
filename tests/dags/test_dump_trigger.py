"""Waiting for files: a worker asks once and is left; the triggerer looks until they are there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from include.errors import PermanentError, TransientError

NOW = datetime.now(UTC)
OLD_US, DAY_US = (int((NOW - timedelta(days=days)).timestamp()) * 1_000_000 for days in (9, 1))
PLAN = [
    {"path": "old.zip", "start_us": OLD_US},
    {"path": "a.zip", "start_us": DAY_US},
    {"pieces": [{"path": "b.zip", "day_us": DAY_US}, {"path": "c.zip", "day_us": DAY_US}]},
]
"""``old.zip`` is of a day before the run's own."""


@pytest.fixture
def dump_trigger(policies):
    from dags.support import dump_trigger

    return dump_trigger


class Run:
    """A run whose day ended at a moment."""

    def __init__(self, end: datetime) -> None:
        self.data_interval_start, self.data_interval_end = end - timedelta(days=1, seconds=1), end


class Site:
    """Answers in turn which files are missing; the last answer stays."""

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
    """The event of a trigger that waits for two files."""
    trigger = dump_trigger.DumpTrigger(
        ["a.zip", "b.zip"], deadline.isoformat(), poll_s, files=files
    )

    async def first() -> object:
        async with asyncio.timeout(30):
            return (await anext(trigger.run())).payload

    return asyncio.run(first())


def test_files_that_are_all_there_are_not_waited_for(dump_trigger, site):
    asked = site([])
    assert execute(dump_trigger) == {"files": 3, "missing": 0}
    assert asked.asked == [["a.zip", "b.zip", "c.zip"]]


def test_the_worker_is_left_to_a_trigger_that_knows_what_is_missing_and_until_when(
    dump_trigger, site
):
    from airflow.sdk.exceptions import TaskDeferred

    site(["b.zip"])
    with pytest.raises(TaskDeferred) as deferred:
        execute(dump_trigger, patience=timedelta(hours=3), poll=timedelta(minutes=2))
    assert deferred.value.method_name == "resume"
    path, arguments = deferred.value.trigger.serialize()
    assert path == "dags.support.dump_trigger.DumpTrigger"
    assert arguments == {
        "paths": ["b.zip"],
        "deadline": (NOW + timedelta(hours=3)).isoformat(),
        "poll_s": 120.0,
        "files": 3,
    }


def test_a_day_long_past_is_not_waited_for(dump_trigger, site):
    site(["b.zip"])
    assert execute(dump_trigger, end=NOW - timedelta(days=2)) == {"files": 3, "missing": 1}


def test_the_trigger_looks_only_for_what_is_still_missing(dump_trigger, site):
    asked = site(["a.zip", "b.zip"], ["b.zip"], [])
    assert fired(dump_trigger, deadline=NOW + timedelta(hours=1)) == {"missing": []}
    assert asked.asked == [["a.zip", "b.zip"], ["a.zip", "b.zip"], ["b.zip"]]


def test_the_trigger_ends_at_the_deadline_and_says_what_never_came(dump_trigger, site):
    site(["b.zip"])
    event = fired(dump_trigger, deadline=datetime.now(UTC) + timedelta(seconds=0.05))
    assert event == {"missing": ["b.zip"]}


def test_stragglers_are_not_waited_for_as_long_as_all(dump_trigger, site, monkeypatch):
    monkeypatch.setattr(dump_trigger, "STRAGGLERS", timedelta(seconds=0.05))
    site(["b.zip"])
    event = fired(dump_trigger, deadline=NOW + timedelta(hours=1), files=3)
    assert event == {"missing": ["b.zip"]}


def test_a_site_that_is_away_at_midnight_is_left_to_the_trigger(dump_trigger, site):
    from airflow.sdk.exceptions import TaskDeferred

    site(TransientError("503"))
    with pytest.raises(TaskDeferred) as deferred:
        execute(dump_trigger)
    assert deferred.value.trigger.paths == ["a.zip", "b.zip", "c.zip"]


def test_a_site_that_does_not_answer_is_asked_again(dump_trigger, site):
    asked = site(TransientError("503"), [])
    assert fired(dump_trigger, deadline=NOW + timedelta(hours=1)) == {"missing": []}
    assert len(asked.asked) == 2


def test_a_site_that_refuses_fails_the_task_with_its_word(dump_trigger, site):
    site(PermanentError("403: this region is blocked"))
    event = fired(dump_trigger, deadline=NOW + timedelta(hours=1))
    task = dump_trigger.WaitForDumps(task_id="wait", plan=PLAN)
    with pytest.raises(PermanentError, match="blocked"):
        task.resume({"dag_run": Run(NOW)}, event)


def test_after_waiting_the_run_goes_on_and_tells_what_is_missing(dump_trigger):
    task = dump_trigger.WaitForDumps(task_id="wait", plan=PLAN)
    assert task.resume({"dag_run": Run(NOW)}, {"missing": ["c.zip"]}) == {"files": 3, "missing": 1}
