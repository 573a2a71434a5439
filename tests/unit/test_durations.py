"""The budget of the suite's times."""

from __future__ import annotations

from pathlib import Path

from tests.durations import WHOLE, over_budget, read_table, write_table

TABLE = {"a": 20.0, "b": 10.0, "c": 5.0}


def test_run_within_the_recorded_times_passes() -> None:
    assert over_budget({"a": 21.0, "b": 9.0, "c": 5.5, "new": 4.0}, TABLE) == []


def test_much_slower_test_is_named() -> None:
    (line,) = over_budget({"a": 20.0, "b": 46.0, "c": 5.0}, TABLE)
    assert line == "b took 46.0 s; its budget here is 10.0 s"


def test_new_slow_test_is_named() -> None:
    (line,) = over_budget({"a": 20.0, "b": 10.0, "c": 5.0, "new": 38.0}, TABLE)
    assert line.startswith("new took 38.0 s")


def test_slow_machine_does_not_fail_the_run() -> None:
    assert over_budget({"a": 60.0, "b": 31.0, "c": 15.0}, TABLE) == []


def test_much_slower_suite_is_named_even_if_no_test_is() -> None:
    tests = {name: seconds * 1.2 for name, seconds in TABLE.items()}
    (line,) = over_budget({**tests, WHOLE: 1_000.0}, {**TABLE, WHOLE: 500.0})
    assert line.startswith("whole suite took 1000.0 s")


def test_table_round_trips(tmp_path: Path) -> None:
    seconds = {f"test_{number}": float(number) for number in range(100)}
    write_table(seconds, tmp_path / "table")
    found = read_table(tmp_path / "table")
    assert len(found) == 51
    assert found["test_99"] == 99.0
    assert "test_48" not in found
