"""Waiting for files of the inbox without holding a worker: Airflow's triggerer looks for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowSkipException
from airflow.triggers.base import BaseTrigger, TriggerEvent

if TYPE_CHECKING:
    from airflow.sdk import Context

PATIENCE = timedelta(hours=6)
"""A run in which no file came ends after that, and the next one waits on."""

POLL = timedelta(seconds=5)


class WaitForFiles(BaseOperator):
    """Waits until the inbox holds files that nobody writes to any more.

    Its result are those files; without one in all its patience it is skipped.

    Args:
        patience: how long to wait.
        poll: time between two looks.
    """

    def __init__(
        self, *, patience: timedelta = PATIENCE, poll: timedelta = POLL, **others: Any
    ) -> None:
        super().__init__(execution_timeout=patience + timedelta(hours=1), **others)
        self.patience = patience
        self.poll = poll

    def execute(self, context: Context) -> Any:
        """Look once, and leave the worker where nothing is there."""
        from dags.support.policies import settings

        inbox = str(settings().inbox.absolute())
        found = look(inbox)
        if found:
            return found
        self.log.info("waiting for files in %s", inbox)
        self.defer(
            trigger=FileTrigger(inbox, self.patience.total_seconds(), self.poll.total_seconds()),
            method_name="resume",
        )

    def resume(self, context: Context, event: Mapping[str, Any]) -> Any:
        """The triggerer has seen files, or enough.

        Raises:
            PermanentError: the folder cannot be read.
            AirflowSkipException: no file came.
        """
        from include.errors import PermanentError

        if event.get("error"):
            raise PermanentError(event["error"])
        if not event["files"]:
            raise AirflowSkipException("no file came; the next run waits on")
        for file in event["files"]:
            self.log.info("%s, %d bytes", file["name"], file["size"])
        return event["files"]


class FileTrigger(BaseTrigger):
    """Fires once settled files lie in the inbox, or after a time.

    Args:
        inbox: the folder, which the triggerer has to see as the tasks do.
        patience_s: how long to wait; begun anew where the triggerer is.
        poll_s: time between two looks.
    """

    def __init__(self, inbox: str, patience_s: float, poll_s: float) -> None:
        super().__init__()
        self.inbox = inbox
        self.patience_s = patience_s
        self.poll_s = poll_s

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """What the triggerer makes this of."""
        return (
            "dags.support.file_trigger.FileTrigger",
            {"inbox": self.inbox, "patience_s": self.patience_s, "poll_s": self.poll_s},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """One event: ``files``, or why there are none."""
        from include.errors import PermanentError

        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.patience_s
        while True:
            try:
                found = await asyncio.to_thread(look, self.inbox)
            except PermanentError as error:
                yield TriggerEvent({"error": str(error)})
                return
            if found or loop.time() >= deadline:
                yield TriggerEvent({"files": found})
                return
            await asyncio.sleep(self.poll_s)


def look(inbox: str) -> list[dict[str, Any]]:
    """Files of an inbox as plain JSON."""
    from pathlib import Path

    from dags.support.policies import as_json
    from include.jobs.files.inbox_folder import find_files

    return [as_json(file) for file in find_files(Path(inbox))]
