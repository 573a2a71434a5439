from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.table import Table

from cli.terminal.tables import fitted, natural_width

FILE = "BTCUSDT-aggTrades-2024-02-29.zip"
NUMBERS = ("1,234,567", "44,640", "44,640", "1,440", "12", "1,234,567")


def shown(width: int) -> str:
    table = Table(title="import")
    for name in ("file", "symbol", "rows", "candles", "new", "partial", "rejected", "rows/s"):
        table.add_column(name, justify="left" if name in ("file", "symbol") else "right")
    table.add_row(FILE, "BTCUSDT", *NUMBERS)
    console = Console(file=io.StringIO(), width=width)
    console.print(fitted(table, console))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 100, 200])
def test_no_cell_is_cut(width: int) -> None:
    text = shown(width)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    assert all(number in text for number in NUMBERS)
    lines = [line for line in text.splitlines() if "import" not in line]
    first = [line.strip("│┃ ").split()[0] for line in lines if line.strip("│┃ ")]
    assert FILE in "".join(first)


def test_frame_stays_where_there_is_room_for_it() -> None:
    assert "┃" in shown(200)
    assert "┃" not in shown(100)


def test_natural_width_does_not_depend_on_the_terminal() -> None:
    table = Table("name", box=None, padding=0)
    table.add_row("x" * 300)
    assert natural_width(table, Console(width=80)) == 300
