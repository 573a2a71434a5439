"""Last captured ids, missing ids, and the instrument that they belong to."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from include.domain.candles import CandleCandidate, Source
from include.domain.timeframes import DAY_US, MINUTE_US
from include.store.candles.minutes import merge_candidates
from include.store.trades import ids as module
from include.store.trades.captured import (
    AGG_TRADES,
    BOOK_TICKERS,
    TRADES,
    book_ticker_line,
    write_raw,
)
from include.store.trades.ids import (
    CandleBeyond,
    MissingIdRange,
    Reached,
    candles_beyond,
    last_rows,
    missing_ids,
    rows_gone,
    stored_ids,
)
from tests.unit.store.candidates import candidate, candle

Connection = psycopg.Connection[Any]
AT_US = 1_763_716_800_000_000
"""2025-11-21 09:20 UTC."""


def agg_line(number: int, *, symbol: str = "A", at_us: int | None = None) -> str:
    moment_us = AT_US + number if at_us is None else at_us
    row = (symbol, number, Decimal("2.5"), Decimal("1E-8"), number, number, moment_us, True)
    return AGG_TRADES.line(row)


def one_line(number: int, *, symbol: str) -> str:
    row = (symbol, number, Decimal("2.5"), Decimal("1E-8"), None, AT_US + number, True)
    return TRADES.line(row)


def test_missing_ids_and_last_rows_are_found_across_days(
    connection: Connection, acting_as: Callable[[str], Any]
) -> None:
    lines = [agg_line(n) for n in (1, 2, 5)]
    lines += [agg_line(8, at_us=AT_US + DAY_US), agg_line(3, symbol="B")]
    write_raw(connection, AGG_TRADES, lines)
    with acting_as("candelabra_streamer"):
        last, missing = stored_ids(connection, AGG_TRADES, ["A", "B", "C"], AT_US)
        assert missing == [
            MissingIdRange("A", 3, 4, AT_US + 2, AT_US + 5),
            MissingIdRange("A", 6, 7, AT_US + 5, AT_US + DAY_US),
        ]
        assert last == {"A": (8, AT_US + DAY_US), "B": (3, AT_US + 3)}
        assert last_rows(connection, AGG_TRADES, ["A", "B", "C"], AT_US) == last
        before = last_rows(connection, AGG_TRADES, ["A"], AT_US, before_us=AT_US + 5)
        assert before == {"A": (2, AT_US + 2)}
        assert last_rows(connection, AGG_TRADES, ["A"], AT_US + 2 * DAY_US) == {}
        assert last_rows(connection, AGG_TRADES, ["A", "B", "C"], None) == last


def test_ids_missing_before_the_first_row_of_a_day_are_found(
    connection: Connection, acting_as: Callable[[str], Any]
) -> None:
    times = {1: 0, 5: 4 * DAY_US, 7: 4 * DAY_US + 1, 9: 7 * DAY_US}
    lines = [agg_line(n, at_us=AT_US + after_us) for n, after_us in times.items()]
    lines += [agg_line(n, symbol="B", at_us=AT_US + n * DAY_US) for n in (3, 4)]
    write_raw(connection, AGG_TRADES, lines)
    at_us = AT_US + 4 * DAY_US
    before, within = (
        MissingIdRange("A", 2, 4, AT_US, at_us),
        MissingIdRange("A", 6, 6, at_us, at_us + 1),
    )
    behind = MissingIdRange("A", 8, 8, at_us + 1, AT_US + 7 * DAY_US)
    with acting_as("candelabra_streamer"):
        for since_us, until_us, found in (
            (at_us, at_us, [before, within]),
            (at_us + 1, at_us + 1, [within]),
            (at_us + DAY_US, AT_US + 9 * DAY_US, [behind]),
            (AT_US, at_us - DAY_US, []),
        ):
            assert missing_ids(connection, AGG_TRADES, ["A", "B"], since_us, until_us) == found
        _, missing = stored_ids(connection, AGG_TRADES, ["A", "B"], at_us)
        assert missing == [before, within, behind]


def test_archived_rows_are_not_missing(connection: Connection) -> None:
    lines = [agg_line(1), agg_line(5, at_us=AT_US + 4 * DAY_US)]
    write_raw(connection, AGG_TRADES, [*lines, agg_line(7, at_us=AT_US + 4 * DAY_US + 1)])
    archived = (
        "INSERT INTO ops.archived_partitions "
        "(dataset, day, path, rows, bytes, fingerprint, content_sha256, dropped_at) "
        "VALUES ('agg_trades', '2025-11-23', 'one.parquet', 3, 1, 1, repeat('0', 64), {})"
    )
    since_us = AT_US + 4 * DAY_US
    connection.execute(archived.format("NULL"))
    _, missing = stored_ids(connection, AGG_TRADES, ["A"], since_us)
    assert [missing_range.first_id for missing_range in missing] == [2, 6]
    connection.execute("UPDATE ops.archived_partitions SET dropped_at = now()")
    _, missing = stored_ids(connection, AGG_TRADES, ["A"], since_us)
    assert [missing_range.first_id for missing_range in missing] == [6]


@pytest.mark.parametrize("later_us", [60 * MINUTE_US, DAY_US])
def test_two_instruments_with_one_ticker_are_distinguished_by_time(
    connection: Connection, later_us: int
) -> None:
    old = [agg_line(n, at_us=AT_US + n) for n in (501, 502, 505)]
    new = [agg_line(n, at_us=AT_US + later_us + n) for n in (7, 8, 11, 12)]
    write_raw(connection, AGG_TRADES, old + new)
    last, missing = stored_ids(connection, AGG_TRADES, ["A"], AT_US)
    assert last == {"A": (12, AT_US + later_us + 12)}
    assert missing == [
        MissingIdRange("A", 503, 504, AT_US + 502, AT_US + 505),
        # an unknown number of trades may be missing between the two
        MissingIdRange("A", 506, 505, AT_US + 505, AT_US + later_us + 7),
        MissingIdRange("A", 9, 10, AT_US + later_us + 8, AT_US + later_us + 11),
    ]


def test_instrument_older_than_the_search_range_is_distinguished(
    connection: Connection,
) -> None:
    old = [agg_line(n, at_us=AT_US + n) for n in (501, 502)]
    new = [agg_line(n, at_us=AT_US + DAY_US + n) for n in (7, 8)]
    write_raw(connection, AGG_TRADES, old + new)
    last, missing = stored_ids(connection, AGG_TRADES, ["A"], AT_US + DAY_US)
    assert missing == [MissingIdRange("A", 503, 502, AT_US + 502, AT_US + DAY_US + 7)]
    assert last == {"A": (8, AT_US + DAY_US + 8)}


def test_rows_stored_during_the_search_hide_no_missing_range(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = [agg_line(n, at_us=AT_US + n) for n in (501, 502)]
    new = [agg_line(n, at_us=AT_US + DAY_US + n) for n in (7, 8)]
    write_raw(connection, AGG_TRADES, old + new)
    missing_ranges_of = module._missing_ranges

    def and_store(*arguments: Any, is_by_time: bool) -> list[MissingIdRange]:
        found = missing_ranges_of(*arguments, is_by_time=is_by_time)
        if is_by_time:  # the stream's first trade after a pause
            write_raw(connection, AGG_TRADES, [agg_line(20, at_us=AT_US + DAY_US + 20)])
        return found

    monkeypatch.setattr(module, "_missing_ranges", and_store)
    last, missing = stored_ids(connection, AGG_TRADES, ["A"], AT_US)
    assert [missing_range.first_id for missing_range in missing] == [503]
    assert last == {"A": (8, AT_US + DAY_US + 8)}  # what follows it shows as missing


def test_clock_change_makes_no_second_instrument(connection: Connection) -> None:
    midnight = AT_US // DAY_US * DAY_US + DAY_US
    times = {1: midnight - 3_000, 2: midnight + 1, 3: midnight - 2_000, 4: midnight + 2}
    write_raw(connection, AGG_TRADES, [agg_line(n, at_us=at) for n, at in times.items()])
    last, missing = stored_ids(connection, AGG_TRADES, ["A"], AT_US)
    assert last == {"A": (4, midnight + 2)}
    # Requested once more, which costs little; none stands for an unknown number.
    assert [(missing_range.first_id, missing_range.last_id) for missing_range in missing] == [
        (2, 2),
        (3, 3),
    ]


def test_candles_beyond_the_last_trades_are_found(
    connection: Connection, acting_as: Callable[[str], Any]
) -> None:
    minute_us = AT_US // MINUTE_US * MINUTE_US

    def traded(symbol: str, minute: int, count: int, *, has_ids: bool = True) -> CandleCandidate:
        ids = (1, count) if has_ids and count else (None, None)
        one = candle(symbol, minute_us + minute * MINUTE_US, trade_count=count, ids=ids)
        return candidate(Source.KLINE if has_ids else Source.REST, one)

    names = ("same", "short", "later", "silent", "counted", "uncounted", "unwritten", "none")
    merge_candidates(
        connection,
        [
            *(traded(name, 0, 5) for name in ("same", "short", "later", "silent", "unwritten")),
            *(traded(name, 0, 5, has_ids=False) for name in ("counted", "uncounted")),
            traded("later", 2, 9),
            traded("silent", 2, 0),
        ],
    )
    lasts = {name: 4 if name in ("short", "uncounted") else 5 for name in names}
    for table, line in ((AGG_TRADES, agg_line), (TRADES, one_line)):
        lines = [line(n, symbol=name) for name, last in lasts.items() for n in range(1, last + 1)]
        write_raw(connection, table, [one for one in lines if not one.startswith("unwritten")])
    reached = [Reached(name, last, AT_US + last) for name, last in lasts.items()]
    with acting_as("candelabra_streamer"):
        for table in (AGG_TRADES, TRADES):
            assert candles_beyond(connection, table, reached, 0) == {
                "short": CandleBeyond(minute_us, 5),
                "uncounted": CandleBeyond(minute_us, 5),
                "later": CandleBeyond(minute_us + 2 * MINUTE_US, 9),
            }
            later_us = minute_us + MINUTE_US
            assert set(candles_beyond(connection, table, reached, later_us)) == {"later"}


def test_rows_that_the_table_lacks_are_found_with_the_last_row_before_them(
    connection: Connection, acting_as: Callable[[str], Any]
) -> None:
    lines = [agg_line(n) for n in (1, 2, 9)]
    lines += [agg_line(n, symbol="B") for n in (3, 4)]
    lines += [agg_line(900, symbol="D"), agg_line(1, symbol="D", at_us=AT_US + 2 * MINUTE_US)]
    lines += [agg_line(900, symbol="E")]
    write_raw(connection, AGG_TRADES, lines)
    rows = [
        Reached("A", 5, AT_US + 5),  # another process has stored later rows
        Reached("B", 4, AT_US + 4),
        Reached("C", 4, AT_US + 4),
        # a ticker that was reused: with a row of the new instrument, and without
        Reached("D", 3, AT_US + 3 * MINUTE_US),
        Reached("E", 3, AT_US + 3 * MINUTE_US),
    ]
    with acting_as("candelabra_streamer"):
        assert rows_gone(connection, AGG_TRADES, rows) == {
            "A": (2, AT_US + 2),
            "C": None,
            "D": (1, AT_US + 2 * MINUTE_US),
            "E": (900, AT_US + 900),
        }


def test_book_ticker_received_on_the_day_after_its_event_is_found(
    connection: Connection, acting_as: Callable[[str], Any]
) -> None:
    received_us = AT_US + DAY_US
    line = book_ticker_line("A.P", 7, "1", "2", "3", "4", AT_US, received_us)
    write_raw(connection, BOOK_TICKERS, [line])
    with acting_as("candelabra_streamer"):
        assert rows_gone(connection, BOOK_TICKERS, [Reached("A.P", 7, received_us)]) == {}
        assert rows_gone(connection, BOOK_TICKERS, [Reached("A.P", 8, received_us + 1)]) == {
            "A.P": (7, received_us)
        }
