"""Outages of the exchange as lines of text and as JSON values."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from include.store.ledgers.outages import Outage

SHOWN_OUTAGES = 10
_SHOWN_SYMBOLS = 3


def outage_lines(outages: Sequence[Outage]) -> list[str]:
    """Return a line for each of the newest outages, and one for the number of the others."""
    lines = [_line(one) for one in outages[:SHOWN_OUTAGES]]
    more = len(outages) - len(lines)
    return [*lines, f"and {more:,} earlier ones; --json shows them"] if more else lines


def outage_values(outages: Sequence[Outage]) -> list[dict[str, Any]]:
    """Return outages as JSON values; ``symbols`` is null if the whole market had no rows."""
    return [
        {
            "market": one.market,
            "symbols": None if one.is_of_market else one.symbols,
            "from": None if one.from_time is None else one.from_time.astimezone(UTC).isoformat(),
            "to": None if one.to_time is None else one.to_time.astimezone(UTC).isoformat(),
            "minutes": one.minutes,
            "cause": one.cause,
        }
        for one in outages
    ]


def _line(one: Outage) -> str:
    if one.is_of_market:
        whose = f"all {one.market} symbols"
    else:
        whose = ", ".join(one.symbols[:_SHOWN_SYMBOLS])
        more = len(one.symbols) - _SHOWN_SYMBOLS
        whose += f" and {more} more" if more > 0 else ""
    minutes = "" if one.minutes is None else f", {one.minutes:,} min"
    return f"{_moment(one.from_time)} to {_moment(one.to_time)}{minutes}: {whose} ({one.cause})"


def _moment(moment: datetime | None) -> str:
    return "ever" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}"
