"""The funding schedule and its holes."""

from __future__ import annotations

import pytest

from include.domain.series.funding import FundingTime, missing_settlements, settles_at_us
from include.domain.timeframes import HOUR_US


def holes(*hours: int, known: dict[int, int] | None = None) -> list[tuple[int, int, int]]:
    """Holes between settlements at these hours: first missing, next stored, number."""
    times = [FundingTime(hour * HOUR_US, (known or {}).get(hour)) for hour in hours]
    return [
        (one.from_us // HOUR_US, one.to_us // HOUR_US, one.count)
        for one in missing_settlements(times)
    ]


@pytest.mark.parametrize("late_us", [-11_000, 0, 1_000, 11_000, 999_999])
def test_a_settlement_belongs_to_the_nearest_hour(late_us: int) -> None:
    assert settles_at_us(8 * HOUR_US + late_us) == 8 * HOUR_US


@pytest.mark.parametrize("late_us", [-HOUR_US // 2, 2_000_000, HOUR_US // 2])
def test_a_time_far_from_an_hour_is_no_settlement(late_us: int) -> None:
    assert settles_at_us(8 * HOUR_US + late_us) is None


def test_a_regular_schedule_has_no_hole() -> None:
    assert holes(0, 8, 16, 24) == []


def test_one_settlement_is_missing() -> None:
    assert holes(0, 4, 8, 16, 20, 24) == [(12, 16, 1)]


def test_two_settlements_are_missing() -> None:
    assert holes(0, 4, 8, 20, 24) == [(12, 20, 2)]


def test_a_change_of_the_interval_is_no_hole() -> None:
    assert holes(0, 4, 8, 16, 24, 32) == []
    assert holes(0, 8, 16, 20, 24, 28) == []


def test_holes_next_to_each_other_are_found() -> None:
    assert holes(0, 4, 8, 16, 24, 28, 32) == [(12, 16, 1), (20, 24, 1)]


def test_a_distance_beyond_the_longest_interval_is_a_hole_without_neighbours() -> None:
    assert holes(0, 16) == [(8, 16, 1)]


def test_the_interval_of_a_file_decides() -> None:
    assert holes(0, 8, known={0: 4, 8: 4}) == [(4, 8, 1)]
    assert holes(0, 8, known={0: 4, 8: 8}) == []
