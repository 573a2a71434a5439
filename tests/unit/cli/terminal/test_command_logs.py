"""Bars and tables stay whole: no JSON unless asked for, no warnings of libraries."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli.terminal.command_logs import quiet

ROOT = Path(__file__).parents[4]

COMMAND = """
import logging, sys, warnings
import structlog
from cli.terminal.command_logs import configure_command_logs
from cli.terminal.console import console
from cli.terminal.progress import rows_watched

configure_command_logs("INFO", sys.argv[1])
log = structlog.get_logger("test")
with rows_watched(console(stderr=True)) as watch, watch("a.csv") as shown:
    shown(0.5, 1_000)
    log.info("file_opened")
    log.warning("row_refused", line=7)
    logging.getLogger("library").warning("old option")
    warnings.warn("it will be removed", DeprecationWarning)
    logging.getLogger("library").error("cannot go on")
    shown(1.0, 2_000)
"""


def output_of_command(*, is_terminal: bool, log_format: str = "json") -> str:
    ours, its = os.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100", "TERM": "xterm"}
    try:
        done = subprocess.run(
            [sys.executable, "-c", COMMAND, log_format],
            env=environment, stderr=its if is_terminal else subprocess.PIPE, check=True, timeout=60,
        )  # fmt: skip
    finally:
        os.close(its)
    text = os.read(ours, 100_000).decode() if is_terminal else done.stderr.decode()
    os.close(ours)
    return text


def test_terminal_has_warnings_for_people_above_the_bar() -> None:
    shown = output_of_command(is_terminal=True)
    assert '{"' not in shown
    assert "file_opened" not in shown
    assert "row_refused" in shown
    assert "old option" not in shown
    assert "will be removed" not in shown
    assert "cannot go on" in shown
    # The bar puts its line away before each line of the log, and draws it again after it.
    before = shown[: shown.index("row_refused")]
    assert "\x1b[2K" in before[before.rindex("a.csv") :]
    assert "a.csv" in shown[shown.index("row_refused") :]


def test_pipe_has_lines_for_people() -> None:
    shown = output_of_command(is_terminal=False, log_format="auto")
    for part in ("file_opened", "row_refused", "cannot go on"):
        assert part in shown
    for part in ('{"', "\x1b", "old option", "will be removed"):
        assert part not in shown


def test_file_has_json_lines_as_set() -> None:
    lines = output_of_command(is_terminal=False).splitlines()
    events = [json.loads(line)["event"] for line in lines if line.startswith("{")]
    assert events[:2] == ["file_opened", "row_refused"]
    assert not any("old option" in line or "will be removed" in line for line in lines)


@pytest.mark.parametrize(
    ("level", "shown"), [("DEBUG", "DEBUG"), ("INFO", "WARNING"), ("ERROR", "ERROR")]
)
def test_screen_is_quiet_unless_more_is_asked_for(level: str, shown: str) -> None:
    assert quiet(level) == shown  # type: ignore[arg-type]
