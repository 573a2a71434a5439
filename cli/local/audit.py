"""Compare every stored minute and bar with the simulated exchange's own klines.

The simulator computes klines from its own trades with separate code, so prices, volumes and counts
come from two independent implementations.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import httpx
import psycopg
from psycopg import sql

from include.domain.candles import VALUE_NAMES
from include.domain.instruments import exchange_symbol_of, market_of
from include.domain.rollup import differing_bar_values
from include.domain.timeframes import TIMEFRAMES, from_us, to_us
from include.errors import TransientError
from include.store.postgres.pools import translated

Values = tuple[Decimal, ...]

_COLUMNS = (1, 2, 3, 4, 5, 7, 8, 9, 10)
"""Positions of the nine values in a kline array, in the order of ``VALUE_NAMES``."""

_TIMEOUT_S = 120.0
MAX_SHOWN = 5


@dataclass(slots=True)
class AuditLine:
    """Result for one symbol at one timeframe.

    Attributes:
        compared: bars that exist on both sides.
        differences: descriptions, with the bar's open time.
    """

    symbol: str
    timeframe: str
    compared: int = 0
    differences: list[str] = field(default_factory=list)


def audit(
    connection: psycopg.Connection[Any],
    oracle_url: str,
    symbols: Sequence[str],
    *,
    start_us: int,
    cutoff_us: int,
) -> list[AuditLine]:
    """Compare all bars that opened since ``start_us`` and closed by ``cutoff_us``.

    Args:
        connection: of a reader.
        oracle_url: base URL of the simulator's HTTP service.
        start_us: first minute of the history.
        cutoff_us: exclusive end of the comparison. All minutes before it must be complete, and the
            marts built after it.

    Raises:
        TransientError: the oracle does not answer.
    """
    lines = []
    for symbol in symbols:
        for name, timeframe in TIMEFRAMES.items():
            ours = dict(_stored(connection, symbol, name, start_us, cutoff_us))
            theirs = {
                open_us: values
                for open_us, values in _oracle(oracle_url, symbol, name, start_us, cutoff_us)
                if timeframe.next_open_us(open_us) <= cutoff_us
            }
            ours = {
                open_us: values
                for open_us, values in ours.items()
                if timeframe.next_open_us(open_us) <= cutoff_us
            }
            lines.append(compare(symbol, name, ours, theirs))
    return lines


def compare(
    symbol: str, timeframe: str, ours: dict[int, Values], theirs: dict[int, Values]
) -> AuditLine:
    """Compare two sets of bars, by open time in µs."""
    line = AuditLine(symbol, timeframe)
    for open_us in sorted(ours.keys() | theirs.keys()):
        at = from_us(open_us).strftime("%Y-%m-%d %H:%M")
        if open_us not in ours:
            line.differences.append(f"{at} is missing")
        elif open_us not in theirs:
            line.differences.append(f"{at} is not the exchange's")
        else:
            line.compared += 1
            mine, yours = ours[open_us], theirs[open_us]
            for name in differing_bar_values(symbol, TIMEFRAMES[timeframe], open_us, mine, yours):
                place = VALUE_NAMES.index(name)
                line.differences.append(
                    f"{at} {name} is {mine[place]}, the exchange says {yours[place]}"
                )
    return line


def _stored(
    connection: psycopg.Connection[Any], symbol: str, timeframe: str, start_us: int, end_us: int
) -> Iterable[tuple[int, Values]]:
    table = (
        sql.Identifier("market", "candles_1m")
        if timeframe == "1m"
        else sql.Identifier("marts", TIMEFRAMES[timeframe].table)
    )
    query = sql.SQL(
        "SELECT open_time, {} FROM {} WHERE symbol = %s AND open_time >= %s AND open_time < %s"
    ).format(sql.SQL(", ").join(map(sql.Identifier, VALUE_NAMES)), table)
    first_us = TIMEFRAMES[timeframe].open_time_us(start_us)
    with translated(connection):
        rows = connection.execute(query, (symbol, from_us(first_us), from_us(end_us))).fetchall()
    for open_time, *values in rows:
        yield to_us(open_time), tuple(Decimal(value) for value in values)


def _oracle(
    base_url: str, symbol: str, timeframe: str, start_us: int, end_us: int
) -> Iterable[tuple[int, Values]]:
    parameters = {
        "market": market_of(symbol).value,
        "symbol": exchange_symbol_of(symbol),
        "interval": timeframe,
        "startTime": str(TIMEFRAMES[timeframe].open_time_us(start_us) // 1000),
        "endTime": str(end_us // 1000 - 1),
    }
    try:
        answer = httpx.get(
            f"{base_url}/sim/klines", params=parameters, timeout=_TIMEOUT_S, trust_env=False
        )
        answer.raise_for_status()
    except httpx.HTTPError as error:
        raise TransientError(
            f"the simulator's own klines at {base_url} cannot be read: {error}"
        ) from error
    for row in answer.json():
        yield int(row[0]) * 1000, tuple(Decimal(row[column]) for column in _COLUMNS)
