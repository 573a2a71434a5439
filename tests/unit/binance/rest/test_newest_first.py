"""Pages of a service that answers with the newest rows are read oldest first."""

from __future__ import annotations

from decimal import Decimal

from include.binance.rest.klines import KlineRow
from include.binance.rest.newest_first import MAX_DAYS, oldest_rows
from include.domain.timeframes import DAY_US, HOUR_US, MINUTE_US, Timeframe, timeframe

START = 1_735_689_600_000_000
MINUTE = timeframe("1m")


class CoinM:
    """Minutes with trades; answers like COIN-M."""

    def __init__(self, *minutes_us: int) -> None:
        self.minutes_us = minutes_us
        self.asked: list[tuple[str, int, int, int]] = []

    def __call__(self, interval: str, start_us: int, end_us: int, rows: int) -> list[KlineRow]:
        assert start_us < end_us <= start_us + 200 * DAY_US
        self.asked.append((interval, start_us, end_us, rows))
        bars: Timeframe = timeframe(interval)
        opens = sorted({bars.open_time_us(each) for each in self.minutes_us})
        found = [each for each in opens if start_us <= each < end_us]
        return [row(each) for each in found[-rows:]]


def row(at_us: int) -> KlineRow:
    one = Decimal(1)
    return KlineRow(at_us // 1000, one, one, one, one, one, at_us // 1000, one, 1, one, one)


def opens(rows: list[KlineRow]) -> list[int]:
    return [(each.open_time * 1000 - START) // MINUTE_US for each in rows]


def test_first_rows_of_a_range_are_returned_and_not_the_last() -> None:
    exchange = CoinM(*(START + n * MINUTE_US for n in range(10)))
    assert opens(oldest_rows(exchange, MINUTE, START, START + HOUR_US, 3)) == [0, 1, 2]
    assert opens(oldest_rows(exchange, MINUTE, START, START + 2 * MINUTE_US, 3)) == [0, 1]


def test_rows_after_a_long_pause_are_found_with_few_requests() -> None:
    begins = 700 * DAY_US // MINUTE_US + 5
    exchange = CoinM(*(START + (begins + n) * MINUTE_US for n in range(10)))
    found = oldest_rows(exchange, MINUTE, 0, START + 900 * DAY_US, 2)
    assert opens(found) == [begins, begins + 1]
    assert len(exchange.asked) < 20


def test_pause_inside_a_day_is_skipped() -> None:
    exchange = CoinM(START, START + 90 * MINUTE_US)
    until_us = START + 3 * DAY_US
    assert opens(oldest_rows(exchange, MINUTE, START + MINUTE_US, until_us, 5)) == [90]


def test_day_whose_rows_precede_the_range_is_passed() -> None:
    later = 2 * DAY_US // MINUTE_US
    exchange = CoinM(START, START + later * MINUTE_US)
    until_us = START + 3 * DAY_US
    assert opens(oldest_rows(exchange, MINUTE, START + MINUTE_US, until_us, 5)) == [later]


def test_range_without_rows_ends() -> None:
    exchange = CoinM()
    assert oldest_rows(exchange, MINUTE, 0, START, 5) == []
    assert {interval for interval, *_ in exchange.asked} == {"1m", "1d"}
    assert oldest_rows(exchange, MINUTE, START, START, 5) == []


def test_wide_bars_stay_within_the_longest_range() -> None:
    exchange = CoinM(START)
    assert opens(oldest_rows(exchange, timeframe("1d"), START, START + 900 * DAY_US, 500)) == [0]
    _, start_us, end_us, _ = exchange.asked[0]
    assert end_us - start_us <= (MAX_DAYS + 1) * DAY_US
