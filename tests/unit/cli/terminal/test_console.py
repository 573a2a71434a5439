from __future__ import annotations

import pytest
from rich.table import Table

from cli.terminal.console import PIPE_WIDTH, console


@pytest.mark.parametrize("stderr", [False, True])
def test_tables_are_not_cut_in_a_pipe(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *, stderr: bool
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    cells = [f"{number:0>24}" for number in range(6)]
    table = Table(*(f"column {number}" for number in range(6)))
    table.add_row(*cells)
    console(stderr=stderr).print(table)
    told = capsys.readouterr()
    text = told.err if stderr else told.out
    assert all(cell in text for cell in cells)
    assert 80 < max(map(len, text.splitlines())) <= PIPE_WIDTH
