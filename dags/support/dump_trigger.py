"""Waiting for dump files without holding a worker: Airflow's triggerer looks for them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.triggers.base import BaseTrigger, TriggerEvent

from dags.support.forms import data_interval

if TYPE_CHECKING:
    from airflow.sdk import Context

PATIENCE = timedelta(hours=18)
"""After the day's end. Files come four to six hours after midnight, at times days later; then
REST stands in, and a later run takes the file."""

STRAGGLERS = timedelta(hours=3)
"""Once most files are there, the others may be missing for good."""

POLL = timedelta(minutes=5)


class WaitForDumps(BaseOperator):
    """Waits until the dump site has the files of a run's own days, or the patience is over.

    Days that a run makes up for beside them are not waited for.

    Args:
        plan: pieces with a ``path``, or groups of them as ``pieces``.
        patience: after the end of the run's data interval.
        poll: time between two looks.
    """

    template_fields: Sequence[str] = ("plan",)

    def __init__(
        self, *, plan: Any, patience: timedelta = PATIENCE, poll: timedelta = POLL, **others: Any
    ) -> None:
        super().__init__(execution_timeout=patience + timedelta(hours=2), **others)
        self.plan = plan
        self.patience = patience
        self.poll = poll

    def execute(self, context: Context) -> Any:
        """Ask once, and leave the worker where something is missing."""
        from dags.support.policies import settings
        from include.errors import TransientError
        from include.jobs.klines.daily import unpublished

        interval = data_interval(context["dag_run"])
        paths = paths_of(self.plan, since=interval["start"])
        try:
            missing = unpublished(settings=settings(), paths=paths)
        except TransientError as error:
            self.log.warning("the dump site does not answer: %s", error)
            missing = paths
        deadline = interval["end"] + self.patience
        if not missing or deadline <= datetime.now(tz=deadline.tzinfo):
            return self._told(len(paths), missing)
        self.log.info("waiting for %d of %d files until %s", len(missing), len(paths), deadline)
        self.defer(
            trigger=DumpTrigger(
                missing, deadline.isoformat(), self.poll.total_seconds(), files=len(paths)
            ),
            method_name="resume",
        )

    def resume(self, context: Context, event: Mapping[str, Any]) -> Any:
        """The triggerer has seen enough.

        Raises:
            PermanentError: the dump site refuses to answer.
        """
        from include.errors import PermanentError

        if event.get("error"):
            raise PermanentError(event["error"])
        since = data_interval(context["dag_run"])["start"]
        return self._told(len(paths_of(self.plan, since=since)), event["missing"])

    def _told(self, files: int, missing: Sequence[str]) -> dict[str, Any]:
        for path in missing:
            self.log.warning("not published in time, REST stands in: %s", path)
        return {"files": files, "missing": len(missing)}


class DumpTrigger(BaseTrigger):
    """Fires once none of these files is missing, or at the deadline.

    Where more than half of the files are there, the rest has three hours from then on.

    Args:
        paths: below the dump site's root.
        deadline: ISO 8601, with a zone.
        poll_s: time between two looks.
        files: how many there are with those that were published before.
    """

    def __init__(self, paths: Sequence[str], deadline: str, poll_s: float, *, files: int) -> None:
        super().__init__()
        self.paths = list(paths)
        self.deadline = deadline
        self.poll_s = poll_s
        self.files = files

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """How the triggerer makes it anew."""
        arguments = {
            "paths": self.paths,
            "deadline": self.deadline,
            "poll_s": self.poll_s,
            "files": self.files,
        }
        return (f"{type(self).__module__}.{type(self).__qualname__}", arguments)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look, wait, look again."""
        from dags.support.policies import settings
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
                has_most, deadline = True, min(deadline, now + STRAGGLERS)
            left_s = (deadline - now).total_seconds()
            if not missing or left_s <= 0:
                yield TriggerEvent({"missing": missing})
                return
            jitter = random.uniform(0.9, 1.1)  # noqa: S311 - many days may wait at once
            await asyncio.sleep(min(self.poll_s * jitter, left_s))


def paths_of(plan: Iterable[Mapping[str, Any]], *, since: datetime) -> list[str]:
    """The files of a plan's pieces, or of its groups of pieces, for days from a moment on."""
    since_us = int(since.timestamp()) * 1_000_000
    return [
        piece["path"]
        for part in plan
        for piece in part.get("pieces", [part])
        if piece.get("start_us", piece.get("day_us")) >= since_us
    ]
