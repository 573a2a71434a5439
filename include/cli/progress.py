"""Progress bars on stderr: per cent, rows and rows a second."""

from __future__ import annotations

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text


class RowsColumn(ProgressColumn):
    """Rows so far and rows a second, from the task's field ``rows``."""

    def render(self, task: Task) -> Text:
        """The text of one task."""
        rows = int(task.fields.get("rows", 0))
        elapsed_s = task.finished_time if task.finished else task.elapsed
        per_s = rows / elapsed_s if elapsed_s else 0.0
        return Text(f"{rows:,} rows, {per_s:,.0f}/s")


def rows_progress(console: Console) -> Progress:
    """Bars whose tasks carry ``rows``; use it in ``with``."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        RowsColumn(),
        TimeElapsedColumn(),
        console=console,
    )
