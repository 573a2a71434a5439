"""Weight is counted in the clock's minute, headers are applied, pauses are kept."""

from __future__ import annotations

import pytest

from include.binance.rest.weights import BEST_KLINES, LocalBudget, klines_rows, klines_weight
from include.domain.instruments import Market
from include.errors import RateLimitedError


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self, now_s: float) -> None:
        self.now_s = now_s
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds


def budget_at(now_s: float, limit: int, **options: float) -> tuple[LocalBudget, Clock]:
    clock = Clock(now_s)
    return LocalBudget(limit, clock=clock, sleep=clock.sleep, **options), clock


def test_weight_within_the_limit_is_granted_immediately() -> None:
    budget, clock = budget_at(1_200_000_015, 10)
    for _ in range(5):
        budget.take(2)
    assert (budget.used, clock.slept) == (10, [])


def test_weight_beyond_the_limit_waits_for_the_next_minute_of_the_clock() -> None:
    budget, clock = budget_at(1_200_000_015, 10)
    budget.take(10)
    budget.take(2)
    assert (clock.slept, budget.used) == ([45.0], 2)


def test_header_includes_the_weight_used_by_others() -> None:
    budget, clock = budget_at(1_200_000_000, 10)
    budget.report(9)
    budget.take(2)
    assert clock.slept == [60.0]


def test_process_stays_within_its_own_limit_without_headers() -> None:
    budget, clock = budget_at(1_200_000_000, 100, own_limit=10)
    budget.take(80)  # a request is never too large to be sent alone
    budget.take(6)
    budget.take(4)
    budget.take(1)
    assert (clock.slept, budget.used) == ([60.0, 60.0], 1)


def test_late_header_of_the_former_minute_is_ignored() -> None:
    budget, clock = budget_at(1_200_000_059, 10)
    budget.take(2)
    clock.now_s += 2
    budget.report(10)
    budget.take(10)
    assert (clock.slept, budget.used) == ([], 10)


def test_lower_header_does_not_give_weight_back() -> None:
    budget, _ = budget_at(1_200_000_000, 10)
    budget.take(8)
    budget.report(3)
    assert budget.used == 8


def test_retry_after_applies_to_every_later_request() -> None:
    budget, clock = budget_at(1_200_000_000, 10)
    budget.report(None, retry_after_s=7)
    budget.take(1)
    assert clock.slept == [7.0]


def test_too_long_wait_raises_with_its_length() -> None:
    budget, clock = budget_at(1_200_000_000, 10, max_wait_s=100)
    budget.report(None, retry_after_s=3_600)
    with pytest.raises(RateLimitedError, match="no request weight for 3600 s") as told:
        budget.take(1)
    assert (told.value.retry_after_s, clock.slept) == (3_600, [])


@pytest.mark.parametrize(
    ("market", "limit", "weight"),
    [
        (Market.SPOT, 1, 2), (Market.SPOT, 1_000, 2), (Market.UM, 99, 1), (Market.UM, 499, 2),
        (Market.UM, 500, 5), (Market.UM, 1_000, 5), (Market.UM, 1_001, 10), (Market.UM, 1_500, 10),
    ],
)  # fmt: skip
def test_klines_have_the_documented_weight(market: Market, limit: int, weight: int) -> None:
    assert klines_weight(market, limit) == weight


@pytest.mark.parametrize("market", list(Market))
def test_default_page_size_gives_the_most_rows_per_weight(market: Market) -> None:
    best = BEST_KLINES[market]
    most = {Market.SPOT: 1_000, Market.UM: 1_500, Market.CM: 1_500}[market]
    rate = best / klines_weight(market, best)
    assert all(rate >= size / klines_weight(market, size) for size in range(1, most + 1))


@pytest.mark.parametrize(
    ("market", "bars", "rows"),
    [
        (Market.SPOT, 1, 2), (Market.SPOT, 999, 1_000), (Market.SPOT, 1_000, 1_000),
        (Market.SPOT, 5_000, 1_000), (Market.UM, 98, 99), (Market.UM, 99, 99),
        (Market.UM, 100, 101), (Market.UM, 498, 499), (Market.UM, 499, 499),
    ],
)  # fmt: skip
def test_following_bar_is_requested_where_it_costs_no_weight(
    market: Market, bars: int, rows: int
) -> None:
    assert klines_rows(market, bars) == rows
    assert klines_weight(market, rows) == klines_weight(market, min(bars, BEST_KLINES[market]))
