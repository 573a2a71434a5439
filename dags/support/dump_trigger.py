"""Wait for dump files in Airflow's triggerer, without occupying a worker."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.triggers.base import BaseTrigger, TriggerEvent

from dags.support.forms import data_interval
from dags.support.policies import settings

if TYPE_CHECKING:
    from airflow.sdk import Context

MAX_WAIT = timedelta(hours=18)
"""After the end of the day. Files appear four to six hours after midnight, sometimes days later.
Without a file REST is used, and a later run loads the file."""

LATE_FILES_WAIT = timedelta(hours=3)
"""Once most files are published, the rest may never come."""

POLL_INTERVAL = timedelta(minutes=5)


class WaitForDumps(BaseOperator):
    """Wait until the dump files of the run's own day are published, or until ``max_wait`` is over.

    Does not wait for files of earlier days that the run also loads.

    Args:
        plan: JSON of ``DayGroup``.
        max_wait: counted from the end of the run's data interval.
        poll_interval: time between two requests to the dump site.
    """

    template_fields: Sequence[str] = ("plan",)

    def __init__(
        self,
        *,
        plan: Any,
        max_wait: timedelta = MAX_WAIT,
        poll_interval: timedelta = POLL_INTERVAL,
        **others: Any,
    ) -> None:
        super().__init__(execution_timeout=max_wait + timedelta(hours=2), **others)
        self.plan = plan
        self.max_wait = max_wait
        self.poll_interval = poll_interval

    def execute(self, context: Context) -> Any:
        """Return if all files are published; otherwise defer to the triggerer."""
        from include.errors import TransientError
        from include.jobs.klines.daily import unpublished

        interval = data_interval(context["dag_run"])
        paths = self._paths(interval["start"])
        try:
            missing = unpublished(settings=settings(), paths=paths)
        except TransientError as error:
            self.log.warning("the dump site does not answer: %s", error)
            missing = paths
        deadline = interval["end"] + self.max_wait
        if not missing or deadline <= datetime.now(tz=deadline.tzinfo):
            return self._result(len(paths), missing)
        self.log.info("waiting for %d of %d files until %s", len(missing), len(paths), deadline)
        self.defer(
            trigger=DumpTrigger(
                missing,
                deadline.isoformat(),
                self.poll_interval.total_seconds(),
                files=len(paths),
            ),
            method_name="resume",
        )

    def resume(self, context: Context, event: Mapping[str, Any]) -> Any:
        """Return the result of the trigger.

        Raises:
            PermanentError: the dump site refuses to answer.
        """
        from include.errors import PermanentError

        if event.get("error"):
            raise PermanentError(event["error"])
        since = data_interval(context["dag_run"])["start"]
        return self._result(len(self._paths(since)), event["missing"])

    def _paths(self, since: datetime) -> list[str]:
        from include.jobs.klines.daily import paths_of
        from include.jobs.task_json import from_json

        since_us = int(since.timestamp()) * 1_000_000
        return paths_of(plan=from_json(self.plan), since_us=since_us)

    def _result(self, files: int, missing: Sequence[str]) -> dict[str, Any]:
        for path in missing:
            self.log.warning("not published in time, using REST instead: %s", path)
        return {"files": files, "missing": len(missing)}


class DumpTrigger(BaseTrigger):
    """Fires when all files are published, or at the deadline.

    Once more than half of the files are published, it waits for the others for
    ``LATE_FILES_WAIT`` at most.

    Args:
        paths: missing files, relative to the dump site's root.
        deadline: ISO 8601 with a time zone.
        poll_s: seconds between two requests.
        files: number of all files, including those that are already published.
    """

    def __init__(self, paths: Sequence[str], deadline: str, poll_s: float, *, files: int) -> None:
        super().__init__()
        self.paths = list(paths)
        self.deadline = deadline
        self.poll_s = poll_s
        self.files = files

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and arguments from which the triggerer creates this trigger."""
        arguments = {
            "paths": self.paths,
            "deadline": self.deadline,
            "poll_s": self.poll_s,
            "files": self.files,
        }
        return (f"{type(self).__module__}.{type(self).__qualname__}", arguments)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event: the paths still ``missing``, or the ``error``."""
        from include.errors import PermanentError, TransientError
        from include.jobs.klines.daily import unpublished

        deadline = datetime.fromisoformat(self.deadline)
        missing, has_most = self.paths, False
        while True:
            try:
                missing = await asyncio.to_thread(unpublished, settings=settings(), paths=missing)
            except TransientError as error:
                self.log.warning("the dump site does not answer: %s", error)
            except PermanentError as error:
                yield TriggerEvent({"error": str(error)})
                return
            now = datetime.now(tz=deadline.tzinfo)
            if not has_most and 2 * len(missing) < self.files:
                has_most, deadline = True, min(deadline, now + LATE_FILES_WAIT)
            left_s = (deadline - now).total_seconds()
            if not missing or left_s <= 0:
                yield TriggerEvent({"missing": missing})
                return
            jitter = random.uniform(0.9, 1.1)  # noqa: S311 - many runs may wait together
            await asyncio.sleep(min(self.poll_s * jitter, left_s))
