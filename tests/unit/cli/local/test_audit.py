from __future__ import annotations

from decimal import Decimal

import pytest

from cli.local.audit import Values, compare

HOUR_US = 3_600_000_000


def bar(**changes: int) -> Values:
    names = ("open", "high", "low", "close", "volume", "quote", "count", "taker", "taker_quote")
    return tuple(Decimal(changes.get(name, 1)) for name in names)


def test_equal_bars_are_counted() -> None:
    line = compare("BTCUSDT", "1h", {0: bar(), HOUR_US: bar()}, {0: bar(), HOUR_US: bar()})
    assert (line.compared, line.differences) == (2, [])


def test_decimal_scale_does_not_count_as_a_difference() -> None:
    ours = tuple(value.quantize(Decimal("0.0001")) for value in bar())
    assert compare("X", "1h", {0: ours}, {0: bar()}).differences == []


def test_each_difference_has_time_field_and_both_values() -> None:
    line = compare(
        "BTCUSDT", "1h", {0: bar(high=2), HOUR_US: bar()}, {0: bar(), 2 * HOUR_US: bar()}
    )
    assert line.compared == 1
    assert line.differences == [
        "1970-01-01 00:00 high is 2, the exchange says 1",
        "1970-01-01 01:00 is not the exchange's",
        "1970-01-01 02:00 is missing",
    ]


@pytest.mark.parametrize(
    ("symbol", "timeframe", "off", "is_equal"),
    [
        ("BTCUSD_PERP", "3m", "0.00000002", True),
        ("BTCUSD_PERP", "3m", "0.000000021", False),
        ("BTCUSD_PERP", "1m", "0.00000001", False),
        ("BTCUSDT", "1h", "0.00000001", False),
    ],
)
def test_only_coin_m_rounds_each_bar(
    symbol: str, timeframe: str, off: str, *, is_equal: bool
) -> None:
    theirs = bar()
    for place in (5, 8):
        ours = (*theirs[:place], theirs[place] + Decimal(off), *theirs[place + 1 :])
        assert (compare(symbol, timeframe, {0: ours}, {0: theirs}).differences == []) is is_equal
    ours = (*theirs[:4], theirs[4] + Decimal("0.00000001"), *theirs[5:])
    assert compare(symbol, timeframe, {0: ours}, {0: theirs}).differences
