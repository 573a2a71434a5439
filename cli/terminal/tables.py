"""Tables that a narrow terminal shows in full: without frames, long texts on several lines."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

_UNLIMITED = 10_000


def natural_width(table: Table, console: Console) -> int:
    """Return the columns that a table needs so that no cell is cut or continued."""
    options = console.options.update(max_width=_UNLIMITED)
    return console.measure(table, options=options).maximum


def fitted(table: Table, console: Console) -> Table:
    """Return the table, changed if the terminal is too narrow for it.

    Frames and padding go first. Then cells of left-justified columns continue on a second line;
    numbers never do.
    """
    if natural_width(table, console) <= console.width:
        return table
    table.box, table.padding = box.SIMPLE_HEAD, 0  # the box has a space between columns
    table.show_edge = table.pad_edge = False
    for column in table.columns:
        column.overflow, column.no_wrap = "fold", column.justify == "right"
    return table
