"""Compare the table with the exchange minute by minute, and the ledgers with both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

import psycopg

from include.domain.timeframes import MINUTE_US, from_us, to_us
from simulator.server import ExchangeThread
from tests.chaos.oracle.ledgers import (
    NO_EVIDENCE,
    Evidence,
    Reused,
    unexplained,
    unproven,
)
from tests.integration.faults.staging import (
    VALUES,
    Row,
    Rows,
    minutes_of,
    oracle,
    outages_of,
    read_rows,
    values_of,
)

MAX_REPORTED = 12

Truth = Mapping[str, Mapping[int, tuple[Decimal, ...]]]


def truth(exchange: ExchangeThread, began_us: Mapping[str, int], until_us: int) -> Truth:
    """The nine values of each minute the exchange has, by symbol and open time."""
    return {
        symbol: oracle(exchange, symbol, start_us, until_us)
        for symbol, start_us in began_us.items()
    }


def differences(
    database_url: str,
    true: Truth,
    began_us: Mapping[str, int],
    until_us: int,
    *,
    reused: Reused = {},  # noqa: B006 - never written to
    given_up: Mapping[str, int] = {},
    evidence: Evidence = NO_EVIDENCE,
) -> list[str]:
    """Return what is wrong in [began, until); empty once everything has recovered.

    Every minute of the exchange is in the table with its nine values, and verified; there is no
    other row, of no other symbol either. Minutes that the exchange lacks between its own are
    outages, and none of its own is. No gap that began before the end is open. The trade ids of
    candles follow each other, and no source has a wrong value.

    Args:
        reused: where trade ids restart.
        given_up: by symbol, from when on its minutes may be missing.
        evidence: which wrong klines could not be detected, and the exchange's trade ids.
    """
    rows = read_rows(database_url)
    found = [f"{one}: was not to be streamed" for one in _symbols(rows) - began_us.keys()]
    for symbol, start_us in began_us.items():
        needed_us = given_up.get(symbol, until_us)
        found += _of_rows(rows, true[symbol], symbol, (start_us, until_us), needed_us, evidence)
        found += _of_outages(database_url, true[symbol], symbol, start_us)
    found += _of_gaps(database_url, until_us)
    found += unproven(database_url, began_us, until_us, reused, evidence)
    return found + unexplained(database_url, evidence)


def _symbols(rows: Rows) -> set[str]:
    return {symbol for symbol, _ in rows}


def _of_rows(
    rows: Rows,
    true: Mapping[int, tuple[Decimal, ...]],
    symbol: str,
    span: tuple[int, int],
    needed_us: int,
    evidence: Evidence,
) -> list[str]:
    start_us, until_us = span
    ours = {one for one in minutes_of(rows, symbol) if start_us <= one < until_us}
    found = [
        f"{_named(symbol, one)}: missing" for one in sorted(true.keys() - ours) if one < needed_us
    ]
    found += [f"{_named(symbol, one)}: invented" for one in sorted(ours - true.keys())]
    for minute in sorted(ours & true.keys()):
        row = rows[symbol, minute]
        if _is_wrong(row, true[minute], evidence.undetectable(symbol, minute)):
            theirs = [str(value) for value in true[minute]]
            stored = [str(value) for value in values_of(row)]
            word = f"{row['status']} by {row['source']}"
            found.append(f"{_named(symbol, minute)}: {stored}, {word}; true is {theirs}")
        elif row["status"] != "verified":
            found.append(f"{_named(symbol, minute)}: {row['status']} by {row['source']}")
    return found


def _is_wrong(row: Row, true: tuple[Decimal, ...], undetectable: frozenset[str]) -> bool:
    """Whether values differ from the exchange's, but for those that a wrong kline may have."""
    excused = undetectable if row["source"] == "kline" else frozenset()
    return any(
        ours != theirs and name not in excused
        for name, ours, theirs in zip(VALUES, values_of(row), true, strict=True)
    )


def _of_outages(
    database_url: str, true: Mapping[int, tuple[Decimal, ...]], symbol: str, start_us: int
) -> list[str]:
    """After the exchange's last minute there may be outages or nothing: it is delisted."""
    last_us = max(true, default=start_us)
    lacking = set(range(start_us, last_us, MINUTE_US)) - true.keys()
    told = {
        minute
        for start, end in outages_of(database_url, symbol)
        for minute in range(start, end, MINUTE_US)
    }
    found = [f"{_named(symbol, one)}: no outage of it" for one in sorted(lacking - told)]
    return found + [f"{_named(symbol, one)}: called an outage" for one in sorted(told & set(true))]


def _of_gaps(database_url: str, until_us: int) -> list[str]:
    with psycopg.connect(database_url) as connection:
        gaps = connection.execute(
            "SELECT symbol, from_time, to_time, cause, detail FROM ops.gaps"
            " WHERE repaired_at IS NULL AND dataset = 'candles_1m' AND from_time < %s"
            " ORDER BY symbol, from_time",
            (from_us(until_us),),
        ).fetchall()
    return [
        f"{_named(symbol, to_us(start))}: gap to {end:%H:%M} is open ({cause}) {detail or ''}"
        for symbol, start, end, cause, detail in gaps
    ]


@dataclass(frozen=True, slots=True)
class GapCounts:
    """Gaps of candles of one run.

    Attributes:
        opened: all of them.
        of_jobs: those that jobs closed.
        silent: those among them that the streamer had not given up: it should have closed them
            itself.
    """

    opened: int = 0
    of_jobs: int = 0
    silent: int = 0


def gaps_of(database_url: str) -> GapCounts:
    """Count the gaps, and who closed them: jobs leave counts of what they fetched."""
    with psycopg.connect(database_url) as connection:
        row = connection.execute(
            "SELECT count(*), count(*) FILTER (WHERE detail ? 'outage_minutes'),"
            " count(*) FILTER (WHERE detail ? 'outage_minutes' AND NOT detail ? 'error')"
            " FROM ops.gaps WHERE dataset = 'candles_1m'"
        ).fetchone()
    return GapCounts(*(row or (0, 0, 0)))


def open_gaps(database_url: str) -> list[str]:
    """Name the open gaps of candles, each with its detail."""
    with psycopg.connect(database_url) as connection:
        rows = connection.execute(
            "SELECT symbol, from_time, to_time, cause, detail FROM ops.gaps"
            " WHERE dataset = 'candles_1m' AND repaired_at IS NULL ORDER BY symbol, from_time"
        ).fetchall()
    return [
        f"{symbol} {start:%d %H:%M} to {end:%d %H:%M}: {cause} {detail}"
        for symbol, start, end, cause, detail in rows
    ]


def expire_claims(database_url: str) -> None:
    """Let all claims of open gaps expire, as time does."""
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE ops.gaps SET claimed_at = '-infinity' WHERE repaired_at IS NULL")


def sources_of(database_url: str) -> Counter[str]:
    """Count the minutes of the table by source."""
    with psycopg.connect(database_url) as connection:
        rows = connection.execute(
            "SELECT source, count(*) FROM market.candles_1m GROUP BY source"
        ).fetchall()
    return Counter(dict(rows))


def _named(symbol: str, minute_us: int) -> str:
    return f"{symbol} {from_us(minute_us):%d %H:%M}"


def shortened(found: list[str]) -> str:
    """The first differences, one a line."""
    more = [f"… and {len(found) - MAX_REPORTED} more"] if len(found) > MAX_REPORTED else []
    return "\n".join(found[:MAX_REPORTED] + more)
