"""A symbol's history: the ends of its rows, its files, its listing."""

from __future__ import annotations

from typing import Any

import psycopg

from include.domain.candles import Source
from include.domain.timeframes import DAY_US, MINUTE_US, from_us
from include.store.candles.history import FileState, file_states, listed_span, stored_span
from include.store.candles.minutes import merge_candidates
from include.store.ledgers.files import DumpFile, record_dump_file
from tests.unit.store.candidates import NOVEMBER_END_US, candidate, candle

Connection = psycopg.Connection[Any]
DAY = NOVEMBER_END_US - DAY_US
END_US = NOVEMBER_END_US + 100_000 * MINUTE_US


def test_stored_minutes_reach_from_the_oldest_to_the_end_of_the_newest(
    connection: Connection,
) -> None:
    assert stored_span(connection, "A", END_US) is None
    for minute in (7, 3, 70_000):
        row = candidate(Source.REST, candle("A", NOVEMBER_END_US + minute * MINUTE_US))
        merge_candidates(connection, [row])
    assert stored_span(connection, "A", END_US) == (
        NOVEMBER_END_US + 3 * MINUTE_US,
        NOVEMBER_END_US + 70_001 * MINUTE_US,
    )
    assert stored_span(connection, "B", END_US) is None
    first = (NOVEMBER_END_US + 3 * MINUTE_US, NOVEMBER_END_US + 8 * MINUTE_US)
    assert stored_span(connection, "A", NOVEMBER_END_US + 70_000 * MINUTE_US) == first


def test_last_fetch_and_last_load_of_a_file_are_found(connection: Connection) -> None:
    window = {"from": from_us(DAY).isoformat(), "to": from_us(DAY + DAY_US).isoformat()}
    for fetched_us, checksum, verdict in ((DAY, "a", "corrupt"), (DAY + 1, "b", "loaded")):
        file = DumpFile(
            "p.zip", checksum, "klines", fetched_us, 5, verdict, symbol="A",
            published_at_us=DAY, detail=window,
        )  # fmt: skip
        record_dump_file(connection, file)
    # re-issued, and not available yet: the table has the earlier issue
    record_dump_file(
        connection,
        DumpFile(
            "p.zip",
            "c",
            "klines",
            DAY + 2,
            0,
            "wrong_checksum",
            symbol="A",
            published_at_us=DAY + MINUTE_US,
        ),
    )
    record_dump_file(connection, DumpFile("q.zip", "", "klines", DAY, 0, "missing", symbol="A"))
    record_dump_file(connection, DumpFile("t.zip", "", "trades", DAY, 0, "missing", symbol="A"))

    assert file_states(connection, "A", "klines") == {
        "p.zip": FileState("wrong_checksum", DAY + 2, DAY, (DAY, DAY + DAY_US)),
        "q.zip": FileState("missing", DAY, None, None),
    }
    assert file_states(connection, "B", "klines") == {}


def test_listing_range_starts_as_published_and_ends_with_the_last_listing(
    connection: Connection,
) -> None:
    def listed(symbol: str, start_us: int, end_us: int | None) -> None:
        connection.execute(
            "INSERT INTO market.instruments (symbol, listed_from, listed_to, market,"
            " exchange_symbol, base_asset, quote_asset, status, tick_size, step_size, seen_at,"
            " quote_volume_is_exact)"
            " VALUES (%s, %s, %s, 'spot', %s, 'A', 'B', 'TRADING', 1, 1, now(), true)",
            (symbol, from_us(start_us), end_us and from_us(end_us), symbol),
        )

    listed("OLD", 0, DAY)
    listed("TWICE", DAY, DAY + MINUTE_US)
    listed("TWICE", DAY + DAY_US, None)
    assert listed_span(connection, "OLD") == (None, DAY)
    assert listed_span(connection, "TWICE") == (DAY, None)
    assert listed_span(connection, "NONE") == (None, None)
