"""Mark prices of the stream, aggregated into minutes."""

from __future__ import annotations

from decimal import Decimal

from include.domain.series.mark_minutes import MinuteFold, PriceMinute
from include.domain.timeframes import MINUTE_US, SECOND_US


def added(fold: MinuteFold, *values: tuple[int, str]) -> list[PriceMinute]:
    """Add values at seconds; return the minutes that ended."""
    ended = (fold.add(second * SECOND_US + 3_000, Decimal(price)) for second, price in values)
    return [one for one in ended if one is not None]


def test_a_whole_minute_has_sixty_seconds() -> None:
    fold = MinuteFold()
    prices = [str(100 + (second * 7) % 60) for second in range(60)]
    (minute,) = added(fold, *enumerate(prices), (60, "1"))
    assert (minute.open_time_us, minute.is_whole) == (0, True)
    assert (minute.open, minute.high, minute.low, minute.close) == (
        Decimal(100), Decimal(159), Decimal(100), Decimal(prices[-1]),
    )  # fmt: skip


def test_a_minute_that_lacks_a_second_is_not_whole() -> None:
    fold = MinuteFold()
    (minute,) = added(fold, *((second, "5") for second in range(61) if second != 30))
    assert not minute.is_whole


def test_an_older_value_is_counted_and_ignored() -> None:
    fold = MinuteFold()
    added(fold, (10, "5"), (9, "1"), (10, "9"))
    assert fold.late == 2
    assert fold.open_minute is not None
    assert fold.open_minute.low == Decimal(5) == fold.open_minute.high


def test_closing_begins_anew() -> None:
    fold = MinuteFold()
    added(fold, (61, "5"))
    minute = fold.close()
    assert minute is not None
    assert minute.open_time_us == MINUTE_US
    assert fold.close() is None
