"""Prices of the day equal those of its minutes, one by one."""

from __future__ import annotations

import random
import sys
from dataclasses import replace
from decimal import Decimal

import pytest

from include.domain.candles import Candle, silent_candle
from include.domain.day_prices import MINUTES, DayOfMinutes, DayPrices
from include.domain.timeframes import DAY_US, MINUTE_US

T0 = 1_800_000_000_000_000 // MINUTE_US * MINUTE_US


def minute(index: int, rng: random.Random) -> Candle:
    open_time_us = T0 + index * MINUTE_US
    if rng.random() < 0.3:
        return silent_candle("X", open_time_us, Decimal(rng.randint(1, 99)))
    decimals = rng.choice([0, 2, 5])
    prices = [Decimal(rng.randint(1, 10**6)).scaleb(-decimals) for _ in range(4)]
    volume = Decimal(rng.randint(1, 10**12)).scaleb(-rng.choice([0, 3, 8]))
    return Candle(
        "X", open_time_us, prices[0], max(prices), min(prices), prices[3], volume, volume * 2,
        rng.randint(1, 9), volume, volume,
    )  # fmt: skip


def expected(minutes: dict[int, Candle]) -> DayPrices:
    newest_us = max(minutes)
    day = [minutes[one] for one in sorted(minutes) if one > newest_us - DAY_US]
    traded = [one for one in day if one.trade_count]
    first, last = day[0].open, day[-1].close
    return DayPrices(
        symbol="X",
        start_us=day[0].open_time_us,
        newest_us=newest_us,
        open=first,
        high=max((one.high for one in traded), default=last),
        low=min((one.low for one in traded), default=last),
        last=last,
        volume=sum((one.volume for one in day), Decimal(0)),
        quote_volume=sum((one.quote_volume for one in day), Decimal(0)),
        trade_count=sum(one.trade_count for one in day),
        change=last - first,
        change_percent=((last - first) * 100 / first).quantize(Decimal("0.0001")),
        minute_count=len(day),
    )


@pytest.mark.parametrize("seed", range(4))
def test_late_skipped_and_revised_minutes_count_once(seed: int) -> None:
    rng = random.Random(seed)
    day = DayOfMinutes("X")
    minutes: dict[int, Candle] = {}
    newest = 0
    for step in range(5_000):
        newest += rng.choices([0, 1, 3, 200, 2_000], [2, 20, 1, 0.02, 0.005])[0]
        candle = minute(newest - (rng.randrange(2_000) if rng.random() < 0.05 else 0), rng)
        is_within = not minutes or candle.open_time_us > max(minutes) - DAY_US
        assert day.put(candle) == is_within
        if is_within:
            minutes[candle.open_time_us] = candle
        if step % 250 == 0:
            assert day.prices() == expected(minutes)


def test_minute_is_known_until_replaced() -> None:
    day = DayOfMinutes("X")
    for index in (0, MINUTES - 1, MINUTES):
        day.put(silent_candle("X", T0 + index * MINUTE_US, Decimal(1)))
        assert day.has(T0) == (index < MINUTES)
        assert day.has(T0 + index * MINUTE_US)
    assert not day.has(T0 + 5 * MINUTE_US)


def test_day_without_minutes_has_no_prices() -> None:
    assert DayOfMinutes("X").prices() is None


def test_day_without_trades_is_flat_at_the_last_price() -> None:
    day = DayOfMinutes("X")
    day.put(silent_candle("X", T0, Decimal("1.5")))
    prices = day.prices()
    assert prices is not None
    assert (prices.high, prices.low, prices.last) == (Decimal("1.5"),) * 3
    assert (prices.change, prices.trade_count, prices.minute_count) == (0, 0, 1)


def test_values_beyond_64_bits_stay_exact() -> None:
    day = DayOfMinutes("X")
    volume = Decimal("123456789012345678.123456789012345678")
    for index in range(3):
        candle = minute(index, random.Random(7))
        day.put(replace(candle, open_time_us=T0 + index * MINUTE_US, volume=volume))
    prices = day.prices()
    assert prices is not None
    assert prices.volume == Decimal("370370367037037034.370370367037037034")


def test_day_uses_little_memory() -> None:
    day = DayOfMinutes("X")
    rng = random.Random(1)
    for index in range(2 * MINUTES):
        day.put(minute(index, rng))
    columns = [day._open, day._high, day._fall, day._volume, day._quote_volume]
    assert sum(sys.getsizeof(column.values) for column in columns) < 70_000


def test_quote_volume_is_unknown_while_that_of_a_minute_is() -> None:
    day, rng = DayOfMinutes("X"), random.Random(1)
    first, second = replace(minute(0, rng), trade_count=1), replace(minute(1, rng), trade_count=1)
    day.put(first)
    day.put(second, has_quotes=False)
    unknown = day.prices()
    assert unknown is not None
    assert unknown == replace(
        expected({one.open_time_us: one for one in (first, second)}), quote_volume=None
    )
    day.put(second)
    assert day.prices() == expected({one.open_time_us: one for one in (first, second)})
    silent = silent_candle("X", second.open_time_us, Decimal(5))
    day.put(silent, has_quotes=False)
    without_trades = day.prices()
    assert without_trades is not None
    assert without_trades.quote_volume == first.quote_volume  # no trades have no volume
    day.put(second, has_quotes=False)
    day.put(replace(first, open_time_us=second.open_time_us + DAY_US))
    left = day.prices()
    assert left is not None
    assert left.quote_volume == first.quote_volume  # the unknown one is a day older
