"""Whether bars in the marts are sums of the stored minutes, computed here a second time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from include.domain.timeframes import TIMEFRAMES, from_us, to_us
from tests.chaos.oracle.ledgers import Reused
from tests.integration.faults.staging import VALUES, Row, Rows, read_rows

CHECKED: Final = ("3m", "5m", "15m", "1h", "4h")

Bars = dict[tuple[str, int], tuple[Any, ...]]


def wrong_bars(database_url: str, reused: Reused) -> list[str]:
    """Return the bars that differ from their minutes; none may be missing or left over.

    Args:
        reused: by symbol, the first minute of each instrument that got the ticker of another. Such
            a bar has the minutes of the later instrument alone.
    """
    rows = read_rows(database_url)
    found = []
    for name in CHECKED:
        ours, theirs = _stored(database_url, name), expected_bars(rows, name, reused)
        found += [
            f"{symbol} {from_us(open_us):%d %H:%M} of {name}: {ours.get((symbol, open_us))}, "
            f"must be {theirs.get((symbol, open_us))}"
            for symbol, open_us in sorted(ours.keys() | theirs.keys())
            if ours.get((symbol, open_us)) != theirs.get((symbol, open_us))
        ]
    return found


def listings(database_url: str) -> list[str]:
    """Name the listings of symbols with more than one, for a report."""
    with psycopg.connect(database_url) as connection:
        rows = connection.execute(
            "SELECT symbol, listed_from, listed_to FROM market.instruments WHERE symbol IN"
            " (SELECT symbol FROM market.instruments GROUP BY symbol HAVING count(*) > 1)"
            " ORDER BY symbol, listed_from"
        ).fetchall()
    return [
        f"listing of {symbol}: {start:%d %H:%M:%S} to {f'{end:%d %H:%M:%S}' if end else 'now'}"
        for symbol, start, end in rows
    ]


def expected_bars(rows: Rows, name: str, reused: Reused) -> Bars:
    """Return nine values and the count of minutes by symbol and open time of the bar.

    Args:
        name: of the timeframe, such as 5m.
    """
    timeframe = TIMEFRAMES[name]
    groups: dict[tuple[str, int], list[Row]] = {}
    for (symbol, minute_us), row in sorted(rows.items()):
        groups.setdefault((symbol, timeframe.open_time_us(minute_us)), []).append(row)
    return {
        (symbol, open_us): _bar(
            list(
                _of_the_last_instrument(
                    minutes,
                    [at for at in reused.get(symbol, ()) if timeframe.open_time_us(at) == open_us],
                )
            )
        )
        for (symbol, open_us), minutes in groups.items()
    }


def _of_the_last_instrument(minutes: Sequence[Row], begins_us: Sequence[int]) -> Iterator[Row]:
    """The minutes since the last instrument of a ticker that has any of them."""
    times = [to_us(row["open_time"]) for row in minutes]
    since_us = max((at for at in begins_us if at <= times[-1]), default=0)
    return (row for row, at in zip(minutes, times, strict=True) if at >= since_us)


def _bar(minutes: Sequence[Row]) -> tuple[Any, ...]:
    traded = [row for row in minutes if row["trade_count"]] or [minutes[-1]]
    prices = (
        traded[0]["open"],
        max(row["high"] for row in traded),
        min(row["low"] for row in traded),
        traded[-1]["close"],
    )
    sums = (sum((row[name] for row in minutes), Decimal(0)) for name in VALUES[4:])
    return (*prices, *sums, len(minutes))


def _stored(database_url: str, name: str) -> Bars:
    query = sql.SQL("SELECT * FROM {}").format(sql.Identifier("marts", TIMEFRAMES[name].table))
    with psycopg.connect(database_url, row_factory=dict_row) as connection:
        return {
            (row["symbol"], to_us(row["open_time"])): (
                *(row[value] for value in VALUES),
                row["minute_count"],
            )
            for row in connection.execute(query)
        }
