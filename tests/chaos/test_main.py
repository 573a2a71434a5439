"""A soak that was ended goes on where it was."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from psycopg import errors

from tests.chaos import __main__ as module
from tests.chaos.__main__ import FOUND, Done, Told, ordered, work
from tests.chaos.run import ChaosError
from tests.chaos.scenario import Scenario


def test_passed_seeds_are_remembered_with_their_options(tmp_path: Path) -> None:
    file = tmp_path / "soaked"
    Done(file, "120 300").add(7)
    Done(file, "5 150").add(8)
    again = Done(file, "120 300")
    assert 7 in again
    assert 8 not in again
    assert 8 in Done(file, "5 150")


def test_nothing_is_remembered_without_a_file() -> None:
    done = Done(None, "5 150")
    done.add(7)
    assert 7 not in done


def test_seeds_that_once_failed_come_first() -> None:
    first, last = min(FOUND), max(FOUND)
    seeds = ordered(first - 1, last - first + 3)
    assert seeds[: len(FOUND)] == sorted(FOUND)
    assert sorted(seeds) == [*range(first - 1, last + 2)]
    assert ordered(last + 1, 2) == [last + 1, last + 2]


def test_failed_cleanup_fails_the_run_and_later_runs_use_another_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    servers: list[Path] = []
    ran: list[tuple[int, int]] = []
    told: list[Told] = []

    @contextmanager
    def chaos_server(folder: Path) -> Iterator[int]:
        servers.append(folder)
        yield len(servers)

    def run(scenario: Scenario, server: int, *, keep: Path | None, patience_s: float) -> str:
        assert patience_s == 9.0
        ran.append((scenario.seed, server))
        if scenario.seed == 2:
            raise ChaosError("rows are missing")
        if scenario.seed == 3:
            try:
                raise ChaosError("sessions stay")
            finally:
                raise errors.ObjectInUse("the database is in use")
        return f"{keep}"

    monkeypatch.setattr(module, "chaos_server", chaos_server)
    monkeypatch.setattr(module, "run", run)
    work(
        [1, 2, 3, 4],
        argparse.Namespace(
            minutes=5.0, speed=150.0, keep=None, patience=9.0, basic=False, strict=False
        ),
        told.append,
    )
    assert ran == [(1, 1), (2, 1), (3, 1), (4, 2)]
    assert [one[:2] for one in told] == [(1, True), (2, False), (3, False), (4, True)]
    assert told[1][2] == "rows are missing"
    assert "sessions stay" in told[2][2]
    assert "the database is in use" in told[2][2]
    assert len({*servers}) == 2


def test_seeds_without_a_server_fail_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Told] = []

    def chaos_server(_: Path) -> None:
        raise OSError("no room")

    monkeypatch.setattr(module, "chaos_server", chaos_server)
    work(
        [1, 2],
        argparse.Namespace(
            minutes=5.0, speed=150.0, keep=None, patience=9.0, basic=False, strict=False
        ),
        told.append,
    )
    assert [one[:2] for one in told] == [(1, False), (2, False)]


def test_waits_of_the_streamer_can_be_shortened() -> None:
    """The program changes constants by name; a renamed one ends it."""
    command = [sys.executable, "-m", "tests.chaos.stage.hurried", "10", "60", "8", "9", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "stream" in done.stdout
