"""A pytest plugin: how long each test took, and whether the suite stays within its budget.

``slowest.tsv`` holds the seconds of the whole suite and of its fifty slowest tests. A run fails if
the suite, or one test, takes more than half as much again. Machines differ in speed, so the budget
is scaled by the median ratio of this run to the table. A test's seconds do not include fixtures:
those that tests share are set up by whichever test a process happens to run first.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from pathlib import Path

import pytest

TABLE = Path(__file__).with_name("slowest.tsv")
ROWS = 50
ALLOWED = 1.5
NOISE_S = 30.0
"""A single test may wait this much longer on a busy machine: for a reconnect, or for a core."""
WHOLE = "whole suite"


def read_table(path: Path = TABLE) -> dict[str, float]:
    """Seconds of the suite and of each test in the table; empty where there is no table yet."""
    if not path.exists():
        return {}
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    return {name: float(seconds) for seconds, name in (line.split("\t") for line in lines)}


def write_table(seconds: dict[str, float], path: Path = TABLE) -> None:
    """Write the suite and its slowest tests, slowest first."""
    slowest = sorted(seconds.items(), key=lambda item: -item[1])[: ROWS + 1]
    rows = [f"{value:.1f}\t{name}" for name, value in slowest]
    path.write_text("\n".join(["# seconds\ttest (make test-times writes this table)", *rows, ""]))


def over_budget(measured: dict[str, float], table: dict[str, float]) -> list[str]:
    """One line for the suite, and one for each test, that exceeds its budget by half.

    A test without a row has the last row's seconds as its budget.
    """
    tests = [name for name in table if name != WHOLE]
    ratios = [measured[name] / table[name] for name in tests if measured.get(name) and table[name]]
    if not ratios:
        return []
    speed = max(1.0, statistics.median(ratios))
    least = min(table.values())
    found = []
    for name, seconds in sorted(measured.items(), key=lambda item: -item[1]):
        budget = table.get(name, least) * speed
        if seconds > budget * ALLOWED + NOISE_S:
            found.append(f"{name} took {seconds:.1f} s; its budget here is {budget:.1f} s")
    return found


class Durations:
    """Collects the seconds of each test, in the process that reports."""

    def __init__(self, *, update: bool) -> None:
        self.update = update
        self.seconds: dict[str, float] = defaultdict(float)
        self.over: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Called by pytest for each phase of each test."""
        self.seconds[WHOLE] += report.duration
        if report.when == "call":
            self.seconds[report.nodeid] += report.duration

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Called by pytest at the end."""
        if hasattr(session.config, "workerinput"):
            return
        if self.update:
            write_table(self.seconds)
            return
        self.over = over_budget(self.seconds, read_table())
        if self.over and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Called by pytest for its last lines."""
        total = self.seconds[WHOLE]
        terminalreporter.write_line(f"{WHOLE}: {total:.0f} s of one process")
        for line in self.over:
            terminalreporter.write_line(f"over budget: {line}", red=True)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Called by pytest."""
    parser.addoption("--budget", choices=["check", "update"], help="check or write slowest.tsv")


def pytest_configure(config: pytest.Config) -> None:
    """Called by pytest."""
    if (mode := config.getoption("--budget")) is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Durations(update=mode == "update"), "durations")
