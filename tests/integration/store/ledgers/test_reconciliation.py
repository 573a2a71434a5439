"""Which sources cover a day and which differ, counted from the ledgers and the table."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import psycopg

from include.domain.candles import Candle, CandleCandidate, Source, Status, silent_candle
from include.domain.instruments import Market
from include.domain.timeframes import DAY_US, HOUR_US, MINUTE_US, from_us
from include.store.candles.minutes import merge_candidates
from include.store.ledgers.files import DumpFile, add_coverage, record_dump_file, record_outage
from include.store.ledgers.reconciliation import (
    DayVerdict,
    answered_by_rest,
    compare_day,
    has_rows,
    note_live,
)

Connection = psycopg.Connection[Any]

DAY = 1_764_460_800_000_000
"""2025-11-30 00:00 UTC."""


def hour(price: int = 1) -> list[Candle]:
    """An hour of flat minutes."""
    return [
        silent_candle("BTCUSDT", DAY + minute * MINUTE_US, Decimal(price)) for minute in range(60)
    ]


def store_source(connection: Connection, source: Source, candles: list[Candle]) -> None:
    """Merge an exchange source's rows, and record their coverage."""
    merge_candidates(
        connection, [CandleCandidate(one, Status.VERIFIED, source, DAY) for one in candles]
    )
    if source is Source.KLINE:
        note_live(connection, "BTCUSDT", DAY, DAY + DAY_US)
    else:
        spans = [(one.open_time_us, one.open_time_us + MINUTE_US) for one in candles]
        add_coverage(connection, "BTCUSDT", source, spans)


def verdict(connection: Connection) -> DayVerdict:
    (one,) = compare_day(connection, ["BTCUSDT"], DAY)
    return one


def test_day_agrees_when_all_sources_reported_and_none_differs(connection: Connection) -> None:
    for source in (Source.KLINE, Source.DUMP_DAILY, Source.REST):
        assert (
            compare_day(connection, ["BTCUSDT"], DAY) == []
            or verdict(connection).verdict == "incomplete"
        )
        store_source(connection, source, hour())
    found = verdict(connection)
    assert (found.verdict, found.expected_minutes, found.live_minutes) == ("agrees", 60, 60)


def test_differing_minutes_are_counted_by_source(connection: Connection) -> None:
    right, wrong = hour(), hour(2)
    store_source(connection, Source.KLINE, [*wrong[:1], *right[1:]])
    store_source(connection, Source.DUMP_MONTHLY, [*right[:10], *wrong[10:13], *right[13:]])
    store_source(connection, Source.DUMP_DAILY, [*right[:20], *wrong[20:25], *right[25:]])
    store_source(connection, Source.REST, right)
    found = verdict(connection)
    assert found.verdict == "differs"
    assert (
        found.live_differing,
        found.monthly_differing,
        found.daily_differing,
        found.rest_differing,
    ) == (1, 3, 5, 0)
    # a minute is revised where another value was stored before
    assert found.revised_minutes == 1 + 3 + 5


def test_aggregate_corrected_by_the_closed_kline_is_no_live_difference(
    connection: Connection,
) -> None:
    aggregated = [CandleCandidate(one, Status.UNCONFIRMED, Source.STREAM) for one in hour(2)]
    merge_candidates(connection, aggregated)
    store_source(connection, Source.KLINE, hour()[:59])
    store_source(connection, Source.REST, hour())
    found = verdict(connection)
    assert (found.live_minutes, found.live_differing) == (60, 1)


def test_outage_minutes_are_not_expected(connection: Connection) -> None:
    rows = [one for one in hour() if one.open_time_us % HOUR_US >= 10 * MINUTE_US]
    store_source(connection, Source.DUMP_DAILY, rows)
    store_source(connection, Source.REST, rows)
    halted = (DAY, DAY + 10 * MINUTE_US)
    record_outage(
        connection, market=Market.SPOT, start_us=halted[0], end_us=halted[1], cause="halt"
    )
    add_coverage(connection, "BTCUSDT", Source.REST, [halted])
    found = verdict(connection)
    assert (found.verdict, found.expected_minutes, found.outage_minutes) == ("agrees", 50, 10)


def test_minute_missing_in_a_file_or_the_table_makes_the_day_incomplete(
    connection: Connection,
) -> None:
    store_source(connection, Source.REST, hour())
    store_source(connection, Source.DUMP_DAILY, hour()[:59])
    assert verdict(connection).verdict == "incomplete"
    add_coverage(connection, "BTCUSDT", Source.DUMP_DAILY, [(DAY, DAY + HOUR_US + MINUTE_US)])
    add_coverage(connection, "BTCUSDT", Source.REST, [(DAY, DAY + HOUR_US + MINUTE_US)])
    found = verdict(connection)
    assert (found.verdict, found.expected_minutes, found.stored_minutes) == ("incomplete", 61, 60)


def test_differing_day_is_complete_only_when_all_sources_reported(connection: Connection) -> None:
    store_source(connection, Source.KLINE, hour(2))
    store_source(connection, Source.REST, hour())
    assert (verdict(connection).verdict, verdict(connection).is_complete) == ("differs", False)
    store_source(connection, Source.DUMP_DAILY, hour())
    assert (verdict(connection).verdict, verdict(connection).is_complete) == ("differs", True)


def test_partial_live_rows_are_no_difference(connection: Connection) -> None:
    merge_candidates(connection, [CandleCandidate(hour(2)[0], Status.PARTIAL, Source.STREAM)])
    store_source(connection, Source.REST, hour())
    store_source(connection, Source.DUMP_DAILY, hour())
    found = verdict(connection)
    assert (found.verdict, found.live_minutes, found.live_differing) == ("agrees", 0, 0)


def test_monthly_file_with_missing_minutes_does_not_agree(connection: Connection) -> None:
    for source in (Source.REST, Source.DUMP_DAILY):
        store_source(connection, source, hour())
    assert verdict(connection).is_complete
    store_source(connection, Source.DUMP_MONTHLY, hour()[:50])
    found = verdict(connection)
    assert (found.verdict, found.monthly_minutes, found.is_complete) == ("incomplete", 50, False)


def test_minute_with_a_candle_is_no_outage(
    connection: Connection,
) -> None:
    store_source(connection, Source.DUMP_DAILY, hour())
    store_source(connection, Source.REST, hour()[1:])
    record_outage(
        connection, market=Market.SPOT, start_us=DAY, end_us=DAY + MINUTE_US, cause="no candle"
    )
    found = verdict(connection)
    assert (found.expected_minutes, found.outage_minutes, found.is_complete) == (60, 0, False)


def test_rest_does_not_report_a_row_that_it_did_not_return(connection: Connection) -> None:
    lacking = (DAY, DAY + MINUTE_US)
    store_source(connection, Source.REST, hour()[1:])
    record_outage(
        connection, market=Market.SPOT, symbol="BTCUSDT", start_us=DAY, end_us=lacking[1],
        cause="the exchange has no candle",
    )  # fmt: skip
    add_coverage(connection, "BTCUSDT", Source.REST, [lacking])
    assert answered_by_rest(connection, "BTCUSDT", DAY, DAY + DAY_US) == [(DAY, DAY + HOUR_US)]
    store_source(connection, Source.DUMP_DAILY, hour())
    found = verdict(connection)
    assert (found.verdict, found.rest_minutes, found.is_complete) == ("incomplete", 59, False)
    assert answered_by_rest(connection, "BTCUSDT", DAY, DAY + DAY_US) == [
        (lacking[1], DAY + HOUR_US)
    ]
    store_source(connection, Source.REST, hour()[:1])
    found = verdict(connection)
    assert (found.verdict, found.rest_minutes, found.is_complete) == ("agrees", 60, True)


def test_values_of_a_replaced_file_do_not_count(connection: Connection) -> None:
    store_source(connection, Source.DUMP_DAILY, hour(2))
    store_source(connection, Source.REST, hour())
    assert verdict(connection).daily_differing == 60
    record_dump_file(
        connection,
        DumpFile(
            path="data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2025-11-30.zip",
            checksum="second",
            kind="klines",
            symbol="BTCUSDT",
            fetched_at_us=DAY + 9,
            published_at_us=DAY + 5,
            rows=60,
            verdict="loaded",
            detail={"from": from_us(DAY).isoformat(), "to": from_us(DAY + DAY_US).isoformat()},
        ),
    )
    found = verdict(connection)
    assert (found.verdict, found.daily_differing) == ("agrees", 0)


def test_rows_of_a_range_are_compared(connection: Connection) -> None:
    store_source(connection, Source.REST, hour())
    assert has_rows(connection, "BTCUSDT", DAY, DAY + MINUTE_US)
    assert not has_rows(connection, "BTCUSDT", DAY - DAY_US, DAY)
