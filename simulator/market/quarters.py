"""Quarterly deliveries: when a dated contract is listed and delivered, and its type and status.

A contract is delivered on the last Friday of a quarter at 08:00 UTC, as recorded. Two contracts of
a pair trade at any time; a delivery lists the contract after the next.
"""

from datetime import UTC, datetime, timedelta
from typing import Literal

from simulator.clock import DAY_US, MINUTE_US, from_us, to_us

ContractType = Literal["PERPETUAL", "CURRENT_QUARTER", "NEXT_QUARTER", "CURRENT_QUARTER DELIVERING"]
DeliveryStatus = Literal["TRADING", "PRE_DELIVERING", "DELIVERING", "DELIVERED"]

NEVER_MS = 4_133_404_800_000  # delivery date of a perpetual contract
_FRIDAY = 4
_DELIVERY_HOUR = 8
# Assumptions: the exchange documents the names of the states, not their lengths.
PRE_DELIVERY_US = 10 * MINUTE_US  # trades go on
_DELIVERING_US = 10 * MINUTE_US
LISTED_AFTER_DELIVERY_US = DAY_US  # then the contract leaves exchangeInfo


def _delivery_of(quarter: int) -> int:
    """Return the delivery time of a quarter, counted from year 0."""
    year, number = divmod(quarter, 4)
    next_year, next_month = divmod(number * 3 + 3, 12)
    last_day = datetime(year + next_year, next_month + 1, 1, tzinfo=UTC) - timedelta(days=1)
    friday = last_day - timedelta(days=(last_day.weekday() - _FRIDAY) % 7)
    return to_us(friday + timedelta(hours=_DELIVERY_HOUR))


def _quarter_of(time_us: int) -> int:
    moment = from_us(time_us)
    return moment.year * 4 + (moment.month - 1) // 3


def delivery_after(time_us: int) -> int:
    """Return the first delivery after a time."""
    quarter = _quarter_of(time_us)
    delivery_us = _delivery_of(quarter)
    return delivery_us if delivery_us > time_us else _delivery_of(quarter + 1)


def delivery_before(time_us: int) -> int:
    """Return the last delivery before a time."""
    quarter = _quarter_of(time_us)
    delivery_us = _delivery_of(quarter)
    return delivery_us if delivery_us < time_us else _delivery_of(quarter - 1)


def onboard_of(delivery_us: int) -> int:
    """Return when the contract of a delivery is listed: at the second delivery before."""
    return delivery_before(delivery_before(delivery_us))


def deliveries(from_us: int, until_us: int) -> list[int]:
    """Return the deliveries of the contracts listed at any time in `from_us … until_us`."""
    found = [delivery_after(from_us)]
    while onboard_of(following := delivery_after(found[-1])) <= until_us:
        found.append(following)
    return found


def date_code(delivery_us: int) -> str:
    """Return the date in a contract's name, e.g. `260327`."""
    return from_us(delivery_us).strftime("%y%m%d")


def delivery_of_code(code: str) -> int:
    """Return the delivery time of a date in a name.

    Raises:
        ValueError: nothing is delivered on that date.
    """
    try:
        day = datetime.strptime(code, "%y%m%d").replace(tzinfo=UTC)
    except ValueError:
        raise ValueError(f"{code} is not a date of the form YYMMDD, e.g. 260327") from None
    delivery_us = to_us(day.replace(hour=_DELIVERY_HOUR))
    if delivery_us != delivery_after(delivery_us - 1):
        following = date_code(delivery_after(delivery_us))
        raise ValueError(
            f"{code} is not a delivery date; contracts end on the last Friday of a quarter, "
            f"the next one is {following}"
        )
    return delivery_us


def contract_type(planned_us: int | None, delivery_us: int | None, at_us: int) -> ContractType:
    """Return a contract's type at a time.

    Args:
        planned_us: delivery of the contract's name; None: a perpetual contract.
        delivery_us: its delivery, which a fault may have brought forward.
    """
    if planned_us is None or delivery_us is None:
        return "PERPETUAL"
    if at_us >= delivery_us:
        return "CURRENT_QUARTER DELIVERING"
    return "CURRENT_QUARTER" if at_us >= delivery_before(planned_us) else "NEXT_QUARTER"


def status_changes(delivery_us: int) -> list[int]:
    """Return when the status of a dated contract changes after its listing."""
    return [delivery_us - PRE_DELIVERY_US, delivery_us, delivery_us + _DELIVERING_US]


def delivery_status(delivery_us: int, at_us: int) -> DeliveryStatus:
    """Return the status of a listed dated contract; a halt does not change it."""
    if at_us < delivery_us - PRE_DELIVERY_US:
        return "TRADING"
    if at_us < delivery_us:
        return "PRE_DELIVERING"
    return "DELIVERING" if at_us < delivery_us + _DELIVERING_US else "DELIVERED"
