"""Progress on stderr: per cent, rows and rows a second; bars on a terminal, otherwise lines."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager

import structlog
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TimeElapsedColumn,
)
from rich.table import Column
from rich.text import Text

from include.counts import counted
from include.jobs.piece_loading import BackfillProgress

log = structlog.get_logger(__name__)

WIDE = 120
"""Terminal columns from which on the bar has its full width."""
BAR_WIDTH, NARROW_BAR_WIDTH = 40, 10
LINE_EACH_S = 10.0
"""Without a terminal: seconds between two log lines about a task."""

Shown = Callable[[float, int], None]
"""Receives the share done (0..1) and the rows so far."""


class RowsColumn(ProgressColumn):
    """Shows the rows so far and rows a second, from the task's field ``rows``."""

    def __init__(self) -> None:
        super().__init__(Column(no_wrap=True))

    def render(self, task: Task) -> Text:
        """Return the text of one task."""
        rows = int(task.fields.get("rows", 0))
        elapsed_s = task.finished_time if task.finished else task.elapsed
        per_s = rows / elapsed_s if elapsed_s else 0.0
        return Text(f"{counted(rows, 'row')}, {per_s:,.0f}/s")


class DescriptionColumn(ProgressColumn):
    """Shows the description on one line, shortened if there is no room for it."""

    def render(self, task: Task) -> Text:
        """Return the text of one task."""
        return Text(task.description, no_wrap=True, overflow="ellipsis")


def rows_progress(console: Console) -> Progress:
    """Bars whose tasks carry ``rows``; use it in ``with``."""
    return Progress(
        DescriptionColumn(),
        BarColumn(bar_width=BAR_WIDTH if console.width >= WIDE else NARROW_BAR_WIDTH),
        TaskProgressColumn(),
        RowsColumn(),
        TimeElapsedColumn(),
        console=console,
    )


@contextmanager
def pieces_progress(console: Console) -> Generator[Callable[[BackfillProgress], None], None, None]:
    """One bar for pieces that are loaded concurrently; yields the callback for each piece."""
    with rows_progress(console) as progress:
        task = progress.add_task("backfill", total=None, rows=0)

        def on_progress(so_far: BackfillProgress) -> None:
            progress.update(
                task,
                total=so_far.total_minutes,
                completed=so_far.done_minutes,
                rows=so_far.rows,
                description=so_far.label,
            )

        yield on_progress


@contextmanager
def rows_watched(
    console: Console, *, line_each_s: float = LINE_EACH_S
) -> Generator[Callable[[str], AbstractContextManager[Shown]], None, None]:
    """Shows tasks one after the other: ``with watch("a.csv") as shown: shown(0.5, 1_000)``.

    Args:
        console: shows bars if it is a terminal; otherwise log lines are written.
        line_each_s: least time between two lines about a task.
    """
    if not console.is_terminal:
        yield lambda name: _lines(name, line_each_s=line_each_s)
        return
    with rows_progress(console) as progress:
        yield lambda name: _bar(progress, name)


@contextmanager
def _bar(progress: Progress, name: str) -> Generator[Shown, None, None]:
    task = progress.add_task(name, total=1.0, rows=0)
    try:
        yield lambda share, rows: progress.update(task, completed=share, rows=rows)
    finally:
        progress.stop_task(task)


@contextmanager
def _lines(name: str, *, line_each_s: float) -> Generator[Shown, None, None]:
    started_s = told_s = time.monotonic()

    def shown(share: float, rows: int) -> None:
        nonlocal told_s
        now_s = time.monotonic()
        if now_s - told_s < line_each_s:
            return
        told_s = now_s
        log.info(
            "rows_read",
            file=name,
            percent=round(100 * share, 1),
            rows=rows,
            rows_per_s=round(rows / (now_s - started_s)),
        )

    yield shown
