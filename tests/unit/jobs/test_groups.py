"""Any plan fits into the tasks that Airflow maps."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from include.jobs.groups import MAX_TASKS, split


@given(count=st.integers(0, 20_000), usual=st.integers(1, 50))
def test_split_keeps_order_and_bounds_the_number(count: int, usual: int) -> None:
    runs = split(range(count), usual=usual)
    assert [item for run in runs for item in run] == list(range(count))
    assert len(runs) <= MAX_TASKS
    assert all(run for run in runs)
    assert all(len(run) >= usual for run in runs[:-1])
