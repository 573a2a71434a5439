"""A run waits in the triggerer for files in the inbox, for a limited time."""

from __future__ import annotations

import asyncio

import pytest


@pytest.fixture
def file_trigger(airflow_home):
    from dags.support import file_trigger

    return file_trigger


@pytest.fixture
def inbox(tmp_path, monkeypatch):
    folder = tmp_path / "inbox"
    monkeypatch.setenv("INBOX_FOLDER", str(folder))
    return folder


@pytest.fixture
def complete(monkeypatch):
    """Treat a file as complete immediately."""
    from include.jobs.files import inbox_folder

    monkeypatch.setitem(inbox_folder.find_files.__kwdefaults__, "unchanged_for_s", 0.0)


def first_event(trigger):
    async def ask():
        async with asyncio.timeout(30):
            return await anext(trigger.run())

    return asyncio.run(ask()).payload


def test_task_returns_files_that_are_there(file_trigger, inbox, complete):
    inbox.mkdir()
    (inbox / "a.csv").write_text("1")
    waiting = file_trigger.WaitForFiles(task_id="wait")
    assert waiting.execute({}) == [{"type": "InboxFile", "name": "a.csv", "size": 1}]


def test_task_defers_when_the_inbox_is_empty(file_trigger, inbox):
    from airflow.sdk.exceptions import TaskDeferred

    waiting = file_trigger.WaitForFiles(task_id="wait")
    with pytest.raises(TaskDeferred) as deferred:
        waiting.execute({})
    assert inbox.is_dir()
    trigger = deferred.value.trigger
    path, arguments = trigger.serialize()
    assert path == f"{type(trigger).__module__}.{type(trigger).__name__}"
    again = type(trigger)(**arguments)
    assert again.serialize() == trigger.serialize()
    assert arguments["inbox"] == str(inbox)


def test_trigger_fires_when_a_file_is_complete(file_trigger, inbox, complete):
    trigger = file_trigger.FileTrigger(str(inbox), 25, 0.01)

    async def ask():
        async with asyncio.timeout(30):
            event = asyncio.ensure_future(anext(trigger.run()))
            while not inbox.is_dir():
                await asyncio.sleep(0.01)
            hidden = inbox / ".a.csv.part"
            hidden.write_text("12")
            assert not event.done()
            hidden.rename(inbox / "a.csv")
            return await event

    assert asyncio.run(ask()).payload == {
        "files": [{"type": "InboxFile", "name": "a.csv", "size": 2}]
    }


def test_task_is_skipped_when_no_file_arrives(file_trigger, inbox):
    from airflow.sdk.exceptions import AirflowSkipException

    event = first_event(file_trigger.FileTrigger(str(inbox), 0.05, 0.01))
    assert event == {"files": []}
    with pytest.raises(AirflowSkipException):
        file_trigger.WaitForFiles(task_id="wait").resume({}, event)


def test_task_fails_when_the_folder_cannot_be_read(file_trigger, tmp_path):
    from include.errors import PermanentError

    (tmp_path / "file").write_text("")
    event = first_event(file_trigger.FileTrigger(str(tmp_path / "file" / "inbox"), 5, 0.01))
    with pytest.raises(PermanentError, match="INBOX_FOLDER"):
        file_trigger.WaitForFiles(task_id="wait").resume({}, event)


def test_task_returns_files_that_arrived(file_trigger):
    files = [{"type": "InboxFile", "name": "a.csv", "size": 1}]
    assert file_trigger.WaitForFiles(task_id="wait").resume({}, {"files": files}) == files
