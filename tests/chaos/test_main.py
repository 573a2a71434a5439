"""A soak that was ended goes on where it was."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.__main__ import FOUND, Done, ordered


def test_seeds_that_went_well_are_remembered_with_how_they_were_run(tmp_path: Path) -> None:
    file = tmp_path / "soaked"
    Done(file, "120 300").add(7)
    Done(file, "5 150").add(8)
    again = Done(file, "120 300")
    assert 7 in again
    assert 8 not in again
    assert 8 in Done(file, "5 150")


def test_without_a_file_nothing_is_remembered() -> None:
    done = Done(None, "5 150")
    done.add(7)
    assert 7 not in done


def test_seeds_that_once_found_something_come_first() -> None:
    first, last = min(FOUND), max(FOUND)
    seeds = ordered(first - 1, last - first + 3)
    assert seeds[: len(FOUND)] == sorted(FOUND)
    assert sorted(seeds) == [*range(first - 1, last + 2)]
    assert ordered(last + 1, 2) == [last + 1, last + 2]
