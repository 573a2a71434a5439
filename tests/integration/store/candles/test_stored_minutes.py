"""Stored symbols and their ranges."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import psycopg

from include.domain.candles import Source
from include.domain.timeframes import MINUTE_US, from_us
from include.store.candles.minutes import merge_candidates
from include.store.migrate import READER
from tests.unit.store.candidates import NOVEMBER_END_US, candidate, candle

YEAR_US = 365 * 1_440 * MINUTE_US


def test_symbols_and_their_ranges_are_found_across_partitions(
    connection: psycopg.Connection[Any],
    acting_as: Callable[[str], AbstractContextManager[psycopg.Connection[Any]]],
) -> None:
    first, last = NOVEMBER_END_US - YEAR_US, NOVEMBER_END_US
    merge_candidates(
        connection,
        [
            candidate(Source.REST, candle("BTCUSDT", first)),
            candidate(Source.REST, candle("BTCUSDT", last)),
            candidate(Source.REST, candle("ETHUSDT.P", last)),
        ],
    )
    with acting_as(READER) as reader:
        symbols = [row[0] for row in reader.execute("SELECT * FROM ops.candle_symbols()")]
        assert symbols == ["BTCUSDT", "ETHUSDT.P"]
        extents = {
            symbol: reader.execute("SELECT ops.stored_minutes(%s)", (symbol,)).fetchone()
            for symbol in (*symbols, "NONE")
        }
    (known,) = extents["BTCUSDT"] or (None,)
    assert (known.lower, known.upper) == (from_us(first), from_us(last + MINUTE_US))
    assert extents["NONE"] is not None
    assert extents["NONE"][0].isempty
