"""Wait for files in the inbox in Airflow's triggerer, without occupying a worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowSkipException
from airflow.triggers.base import BaseTrigger, TriggerEvent

from dags.support.policies import settings

if TYPE_CHECKING:
    from airflow.sdk import Context

MAX_WAIT = timedelta(hours=6)
"""A run that receives no file ends after this time; the next run continues to wait."""

POLL_INTERVAL = timedelta(seconds=5)


class WaitForFiles(BaseOperator):
    """Wait until the inbox holds complete files, and return them.

    The task is skipped if no file arrives within ``max_wait``.

    Args:
        max_wait: how long to wait.
        poll_interval: time between two scans of the folder.
    """

    def __init__(
        self,
        *,
        max_wait: timedelta = MAX_WAIT,
        poll_interval: timedelta = POLL_INTERVAL,
        **others: Any,
    ) -> None:
        super().__init__(execution_timeout=max_wait + timedelta(hours=1), **others)
        self.max_wait = max_wait
        self.poll_interval = poll_interval

    def execute(self, context: Context) -> Any:
        """Return the files that are there; otherwise defer to the triggerer."""
        inbox = str(settings().inbox.absolute())
        found = find_files_as_json(inbox)
        if found:
            return found
        self.log.info("waiting for files in %s", inbox)
        self.defer(
            trigger=FileTrigger(
                inbox, self.max_wait.total_seconds(), self.poll_interval.total_seconds()
            ),
            method_name="resume",
        )

    def resume(self, context: Context, event: Mapping[str, Any]) -> Any:
        """Return the files that the trigger found.

        Raises:
            PermanentError: the folder cannot be read.
            AirflowSkipException: no file arrived.
        """
        from include.errors import PermanentError

        if event.get("error"):
            raise PermanentError(event["error"])
        if not event["files"]:
            raise AirflowSkipException("no file arrived; the next run continues to wait")
        for file in event["files"]:
            self.log.info("%s, %d bytes", file["name"], file["size"])
        return event["files"]


class FileTrigger(BaseTrigger):
    """Fires when complete files are in the inbox, or after ``max_wait_s``.

    Args:
        inbox: the folder; the triggerer needs access to it, like the tasks.
        max_wait_s: longest wait; counts anew after a restart of the triggerer.
        poll_s: seconds between two scans.
    """

    def __init__(self, inbox: str, max_wait_s: float, poll_s: float) -> None:
        super().__init__()
        self.inbox = inbox
        self.max_wait_s = max_wait_s
        self.poll_s = poll_s

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and arguments from which the triggerer creates this trigger."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {"inbox": self.inbox, "max_wait_s": self.max_wait_s, "poll_s": self.poll_s},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event: the ``files``, empty after the maximum wait, or the ``error``."""
        from include.errors import PermanentError

        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.max_wait_s
        while True:
            try:
                found = await asyncio.to_thread(find_files_as_json, self.inbox)
            except PermanentError as error:
                yield TriggerEvent({"error": str(error)})
                return
            if found or loop.time() >= deadline:
                yield TriggerEvent({"files": found})
                return
            await asyncio.sleep(self.poll_s)


def find_files_as_json(inbox: str) -> list[dict[str, Any]]:
    """List the complete files of an inbox as JSON."""
    from pathlib import Path

    from include.jobs.files.inbox_folder import find_files
    from include.jobs.task_json import to_json

    return [to_json(file) for file in find_files(Path(inbox))]
