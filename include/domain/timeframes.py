"""The exchange's intervals, and the bars that contain a time (UTC, whatever the session's time
zone)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

ORIGIN_US = int(datetime(2001, 1, 1, tzinfo=UTC).timestamp()) * SECOND_US
"""2001-01-01 UTC, a Monday: with this origin ``date_bin`` gives all recorded 3d and 1w bars."""


@dataclass(frozen=True, slots=True)
class Timeframe:
    """One interval of the exchange.

    Attributes:
        name: the exchange's name (``5m``, ``1M``).
        width_us: width in microseconds; None for the calendar month.
        table: its mart's name (``candles_1mo``, because ``1M`` equals ``1m`` where case is
            ignored).
        parent: the next finer interval that divides it, from which it is rolled up.
    """

    name: str
    width_us: int | None
    table: str
    parent: str | None

    def open_time_us(self, moment_us: int) -> int:
        """Return the open time of the bar that contains ``moment_us``."""
        if self.width_us is not None:
            return moment_us - (moment_us - ORIGIN_US) % self.width_us
        moment = datetime.fromtimestamp(moment_us // SECOND_US, tz=UTC)
        return to_us(datetime(moment.year, moment.month, 1, tzinfo=UTC))

    def next_open_us(self, open_time_us: int) -> int:
        """Return the open time of the bar after the one that opens at ``open_time_us``."""
        if self.width_us is not None:
            return open_time_us + self.width_us
        moment = datetime.fromtimestamp(open_time_us // SECOND_US, tz=UTC)
        year, month = divmod(moment.year * 12 + moment.month, 12)
        return to_us(datetime(year, month + 1, 1, tzinfo=UTC))


def _fixed(name: str, width_us: int, parent: str | None) -> Timeframe:
    return Timeframe(name, width_us, f"candles_{name}", parent)


TIMEFRAMES: dict[str, Timeframe] = {
    timeframe.name: timeframe
    for timeframe in (
        _fixed("1m", MINUTE_US, None),
        _fixed("3m", 3 * MINUTE_US, "1m"),
        _fixed("5m", 5 * MINUTE_US, "1m"),
        _fixed("15m", 15 * MINUTE_US, "5m"),
        _fixed("30m", 30 * MINUTE_US, "15m"),
        _fixed("1h", HOUR_US, "30m"),
        _fixed("2h", 2 * HOUR_US, "1h"),
        _fixed("4h", 4 * HOUR_US, "2h"),
        _fixed("6h", 6 * HOUR_US, "2h"),
        _fixed("8h", 8 * HOUR_US, "4h"),
        _fixed("12h", 12 * HOUR_US, "6h"),
        _fixed("1d", DAY_US, "12h"),
        _fixed("3d", 3 * DAY_US, "1d"),
        _fixed("1w", 7 * DAY_US, "1d"),
        Timeframe("1M", None, "candles_1mo", "1d"),
    )
}
"""All intervals of the exchange from one minute up, finest first."""


def timeframe(name: str) -> Timeframe:
    """Return the timeframe of this name.

    Raises:
        ValueError: the exchange has no such interval; the message lists the valid ones.
    """
    try:
        return TIMEFRAMES[name]
    except KeyError:
        known = ", ".join(TIMEFRAMES)
        raise ValueError(f"unknown timeframe {name!r}; known are {known}") from None


def minute_of(moment_us: int) -> int:
    """Return the open time of the minute that contains ``moment_us``."""
    return moment_us - moment_us % MINUTE_US


def to_us(moment: datetime) -> int:
    """Convert an aware datetime to microseconds since the epoch, exactly (no float)."""
    if moment.tzinfo is None:
        raise ValueError(f"{moment} has no time zone; give UTC explicitly")
    delta = moment - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * SECOND_US + delta.microseconds


def from_us(moment_us: int) -> datetime:
    """Convert microseconds since the epoch to an aware UTC datetime, exactly (no float)."""
    return _EPOCH + timedelta(microseconds=moment_us)


def from_us_text(moment_us: int) -> str:
    """Format microseconds since the epoch as ISO 8601 in UTC, for logs and messages."""
    return from_us(moment_us).isoformat()
