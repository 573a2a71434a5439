"""docs/simulator.md lists the libraries, how to point them here, and what is proven."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.clients.exchanges import LIBRARIES

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(__file__).parent / "programs"
TEXT = (ROOT / "docs" / "simulator.md").read_text()
SECTION = TEXT.partition("## Public client libraries\n")[2].partition("\n## ")[0]
ROWS = [
    [cell.strip() for cell in line.strip("| ").split(" | ")]
    for line in SECTION.splitlines()
    if line.startswith("| `")
]


def row_of(library: str) -> list[str]:
    name = library.replace("_", "-")
    (row,) = [row for row in ROWS if row[0].startswith(f"`{name}")]
    return row


def test_every_installed_library_has_a_row() -> None:
    text = (ROOT / "requirements-clients.in").read_text()
    wanted = re.findall(r"^([\w-]+)==", text.partition("# Readers of")[0], flags=re.MULTILINE)
    named = {name for row in ROWS for name in re.findall(r"`([\w-]+)`", row[0])}
    assert len(wanted) >= 3
    assert set(wanted) == named


@pytest.mark.parametrize("library", LIBRARIES)
def test_row_names_the_settings_of_its_program(library: str) -> None:
    source = (PROGRAMS / f"{library}_client.py").read_text()
    settings = re.findall(r"`([A-Za-z_.]+)`", row_of(library)[1])
    assert len(settings) >= 4
    for setting in settings:
        assert re.search(rf"\b{setting.rpartition('.')[2]}\b", source), setting


@pytest.mark.parametrize("library", LIBRARIES)
def test_row_lists_the_commands_of_its_program(library: str) -> None:
    tree = ast.parse((PROGRAMS / f"{library}_client.py").read_text())
    commands = [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and "command" in map(ast.unparse, node.decorator_list)
    ]
    assert commands
    assert sorted(row_of(library)[2].split(", ")) == sorted(commands)


@pytest.mark.parametrize("command", row_of("ccxt")[2].split(", "))
def test_every_command_is_tested_and_explained(command: str) -> None:
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    assert f'"{command}"' in tests
    explained = re.findall(r"^- \*\*(.+?)\*\*:", SECTION, flags=re.MULTILINE)
    assert command in ", ".join(explained).split(", ")
