"""The second computation of bars."""

from __future__ import annotations

from decimal import Decimal

from include.domain.timeframes import MINUTE_US, from_us, to_us
from tests.chaos.oracle.marts import expected_bars
from tests.integration.faults.staging import VALUES, Row, Rows

OPEN = 1_767_225_600_000_000  # 2026-01-01
HOUR_US = 60 * MINUTE_US


def row(minute: int, price: int, count: int = 2) -> Row:
    values = (price, price + 1, price - 1, price, count, count * price, count, count, count)
    return {
        "open_time": from_us(OPEN + minute * MINUTE_US),
        **{name: Decimal(value) for name, value in zip(VALUES, values, strict=True)},
    }


def rows(*given: Row) -> Rows:
    return {("BTCUSDT", to_us(one["open_time"])): one for one in given}


def test_bar_has_prices_of_traded_minutes_and_sums_of_all() -> None:
    (bar,) = expected_bars(rows(row(0, 5, 0), row(1, 10), row(4, 7)), "5m", {}).values()
    assert bar == (10, 11, 6, 7, 4, 34, 4, 4, 4, 3)


def test_bar_without_trades_has_the_last_price() -> None:
    (bar,) = expected_bars(rows(row(0, 5, 0), row(1, 6, 0)), "5m", {}).values()
    assert bar[:5] == (6, 7, 5, 6, 0)


def test_bar_of_two_instruments_has_the_minutes_of_the_later_one() -> None:
    found = rows(row(0, 5), row(1, 6), row(50, 90), row(70, 91))
    reused = {"BTCUSDT": {OPEN + 40 * MINUTE_US}}
    bars = expected_bars(found, "1h", reused)
    assert bars["BTCUSDT", OPEN][:4] == (90, 91, 89, 90)
    assert bars["BTCUSDT", OPEN + HOUR_US][:4] == (91, 92, 90, 91)
    # without a row of the later one, the bar is the former's
    assert expected_bars(rows(row(0, 5)), "1h", reused)["BTCUSDT", OPEN][:4] == (5, 6, 4, 5)
