"""A plan shows its cost before it runs."""

from __future__ import annotations

import pytest

from include.domain.instruments import Market
from include.domain.timeframes import MINUTE_US
from include.jobs.klines.estimates import Rates, estimate, rest_cost, wait_for_weight_s
from include.jobs.klines.pieces import BackfillPlan, DumpPiece, RestPiece


def rest(minutes: int, symbol: str = "X") -> RestPiece:
    return RestPiece(symbol, symbol, 0, minutes * MINUTE_US)


def dump(minutes: int, size_bytes: int) -> DumpPiece:
    return DumpPiece("X", "X", "p", "dump_monthly", 0, minutes * MINUTE_US, size_bytes=size_bytes)


def test_pages_have_the_weight_of_the_market_plus_one_server_time() -> None:
    assert rest_cost(rest(2_500), Market.SPOT) == (4, 7)
    assert rest_cost(rest(499 * 2 + 1, "X.P"), Market.UM) == (4, 6)


def test_file_costs_two_requests_and_no_weight() -> None:
    cost = estimate(BackfillPlan((dump(1440, 100), dump(1440, 50)), (rest(1000),)))
    assert (cost.requests, cost.weight, cost.size_bytes) == (6, 3, 150)


def test_empty_plan_costs_nothing() -> None:
    assert estimate(BackfillPlan()).seconds == 0


@pytest.mark.parametrize(
    ("plan", "seconds"),
    [
        (BackfillPlan((dump(44_640, 10),)), 44.64),  # the table
        (BackfillPlan((dump(1_000, 50_000),)), 50),  # the line
        (BackfillPlan((), (rest(9_000_000),)), 60 * (18_001 - 4_500) / 4_500),  # the weight
    ],
)
def test_slowest_of_table_network_and_weight_decides(plan: BackfillPlan, seconds: float) -> None:
    rates = Rates(dump_rows_s=1_000, rest_rows_s=1e6, download_bytes_s=1_000)
    assert estimate(plan, rates=rates).seconds == pytest.approx(seconds)


def test_weight_of_a_minute_is_granted_immediately() -> None:
    assert wait_for_weight_s(4_500, Market.SPOT, weight_share=0.75) == 0
    assert wait_for_weight_s(9_000, Market.SPOT, weight_share=0.75) == 60
