"""Read chart marks: repaired minutes, minutes that lack trades, gaps, outages."""

from __future__ import annotations

from dataclasses import dataclass

from include.counts import counted
from include.domain.timeframes import from_us, from_us_text, to_us
from include.store.candles.merging import Connection
from include.store.postgres.pools import translated

MAX_MARKS = 500
"""Maximum marks of a range, newest first: a chart full of marks is unreadable."""

_MINUTES = """
SELECT c.open_time, c.status = 'partial', c.revision, c.source
FROM market.candles_1m AS c
WHERE
    c.symbol = %(symbol)s AND c.open_time >= %(start)s AND c.open_time < %(end)s
    AND (c.revision > 0 OR c.status = 'partial')
ORDER BY c.open_time DESC
LIMIT %(limit)s
"""

_GAPS = """
SELECT g.id, g.from_time, g.to_time, g.cause, g.repaired_at
FROM ops.gaps AS g
WHERE
    g.symbol = %(symbol)s AND g.from_time < %(end)s AND g.to_time > %(start)s
    AND g.dataset = 'candles_1m'
ORDER BY g.from_time DESC
LIMIT %(limit)s
"""

_OUTAGES = """
SELECT o.id, lower(spans.minutes), upper(spans.minutes), o.cause, o.symbol
FROM ops.outages AS o
CROSS JOIN LATERAL unnest(o.minutes) AS spans (minutes)
WHERE
    o.market = market.market_of(%(symbol)s)
    AND (o.symbol IS NULL OR o.symbol = %(symbol)s)
    AND spans.minutes && tstzrange(%(start)s, %(end)s)
ORDER BY 2 DESC
LIMIT %(limit)s
"""


@dataclass(frozen=True, slots=True)
class Mark:
    """A mark on a chart.

    Attributes:
        time_us: open time of the minute at which it begins.
        kind: ``repaired``, ``partial``, ``gap`` or ``outage``.
        text: description.
    """

    id: str
    time_us: int
    kind: str
    text: str


def read_marks(connection: Connection, symbol: str, start_us: int, end_us: int) -> list[Mark]:
    """Return repaired minutes, minutes known to lack trades, and gaps, by time.

    Args:
        start_us, end_us: half-open range of times (µs).
    """
    arguments = _arguments(symbol, start_us, end_us)
    with translated(connection):
        minutes = connection.execute(_MINUTES, arguments).fetchall()
        gaps = connection.execute(_GAPS, arguments).fetchall()
    found = []
    for open_time, is_partial, revision, source in minutes:
        time_us = to_us(open_time)
        text = (
            "known to miss trades"
            if is_partial
            else f"revised {counted(revision, 'time')}, now from {source}"
        )
        kind = "partial" if is_partial else "repaired"
        found.append(Mark(f"{kind}-{time_us}", time_us, kind, text))
    for number, start, end, cause, repaired_at in gaps:
        outcome = "open" if repaired_at is None else f"repaired at {repaired_at.isoformat()}"
        text = f"{cause}, until {from_us_text(to_us(end))}; {outcome}"
        found.append(Mark(f"gap-{number}", to_us(start), "gap", text))
    return sorted(found, key=lambda one: (one.time_us, one.kind))


def read_outages(connection: Connection, symbol: str, start_us: int, end_us: int) -> list[Mark]:
    """Return times in which the exchange was down or the symbol halted, by time.

    Args:
        start_us, end_us: half-open range of times (µs).
    """
    with translated(connection):
        rows = connection.execute(_OUTAGES, _arguments(symbol, start_us, end_us)).fetchall()
    found = []
    for number, start, end, cause, of_symbol in rows:
        if start is None:
            continue  # an outage without a start has no place on the time axis
        until = "still" if end is None else f"until {from_us_text(to_us(end))}"
        whose = of_symbol or "the whole market"
        found.append(
            Mark(f"outage-{number}-{to_us(start)}", to_us(start), "outage",
                 f"outage of {whose}, {until}: {cause}")
        )  # fmt: skip
    return sorted(found, key=lambda one: one.time_us)


def _arguments(symbol: str, start_us: int, end_us: int) -> dict[str, object]:
    return {
        "symbol": symbol,
        "start": from_us(start_us),
        "end": from_us(end_us),
        "limit": MAX_MARKS,
    }
