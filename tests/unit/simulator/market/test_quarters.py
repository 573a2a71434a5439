"""Deliveries of quarterly contracts: dates, types and status, as recorded."""

from datetime import UTC, datetime, timedelta

import pytest

from simulator.clock import DAY_US, from_us, to_us
from simulator.market.quarters import (
    contract_type,
    date_code,
    deliveries,
    delivery_after,
    delivery_before,
    delivery_of_code,
    delivery_status,
    onboard_of,
)

MARCH = to_us(datetime(2026, 3, 27, 8, tzinfo=UTC))
MINUTE = 60_000_000


def test_recorded_contract_has_its_delivery_and_listing() -> None:
    delivery_us = delivery_of_code("210924")
    assert delivery_us == 1_632_470_400_000_000  # BTCUSD_210924 in a recorded exchangeInfo
    assert onboard_of(delivery_us) == 1_616_745_600_000_000
    assert delivery_of_code("211231") == 1_640_937_600_000_000


def test_every_delivery_is_the_last_friday_of_its_quarter() -> None:
    at_us = to_us(datetime(2019, 12, 31, tzinfo=UTC))
    for _ in range(60):
        at_us = delivery_after(at_us)
        moment = from_us(at_us)
        assert (moment.weekday(), moment.hour, moment.month % 3) == (4, 8, 0)
        assert (moment + timedelta(days=7)).month != moment.month
        assert delivery_after(delivery_before(at_us)) == at_us


@pytest.mark.parametrize("code", ["260326", "260130", "261301"])
def test_other_dates_are_refused(code: str) -> None:
    with pytest.raises(ValueError, match=r"last Friday|is not a date"):
        delivery_of_code(code)


def test_contracts_of_a_period_are_those_listed_in_it() -> None:
    found = deliveries(MARCH - DAY_US, MARCH + DAY_US)
    assert [date_code(one) for one in found] == ["260327", "260626", "260925"]
    assert [date_code(one) for one in deliveries(MARCH - 2, MARCH - 1)] == ["260327", "260626"]


def test_type_changes_with_the_deliveries() -> None:
    june = delivery_after(MARCH)
    assert contract_type(None, None, MARCH) == "PERPETUAL"
    assert contract_type(june, june, MARCH - 1) == "NEXT_QUARTER"
    assert contract_type(june, june, MARCH) == "CURRENT_QUARTER"
    assert contract_type(june, june, june) == "CURRENT_QUARTER DELIVERING"


@pytest.mark.parametrize(
    ("minutes", "status"),
    [(-11, "TRADING"), (-10, "PRE_DELIVERING"), (0, "DELIVERING"), (10, "DELIVERED")],
)
def test_status_follows_the_delivery(minutes: int, status: str) -> None:
    assert delivery_status(MARCH, MARCH + minutes * MINUTE) == status
