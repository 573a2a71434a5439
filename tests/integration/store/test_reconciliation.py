"""Who spoke about a day and who differs, counted from the ledgers and the table."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import psycopg

from include.domain.candles import Candle, Offer, Source, Status, silent_candle
from include.domain.instruments import Market
from include.domain.timeframes import DAY_US, HOUR_US, MINUTE_US
from include.store.candles import merge_offers
from include.store.ledgers import add_coverage, record_outage
from include.store.reconciliation import (
    DayVerdict,
    compare_day,
    has_rows,
    note_live,
    read_verdicts,
    record_verdicts,
)

Connection = psycopg.Connection[Any]

DAY = 1_795_996_800_000_000
"""2026-11-30 00:00 UTC."""


def hour(price: int = 1) -> list[Candle]:
    """An hour of flat minutes."""
    return [
        silent_candle("BTCUSDT", DAY + minute * MINUTE_US, Decimal(price)) for minute in range(60)
    ]


def say(connection: Connection, source: Source, candles: list[Candle]) -> None:
    """Merge what an exchange's source says, and that it has said it."""
    merge_offers(connection, [Offer(one, Status.VERIFIED, source, DAY) for one in candles])
    if source is Source.KLINE:
        note_live(connection, "BTCUSDT", DAY, DAY + DAY_US)
    else:
        spans = [(one.open_time_us, one.open_time_us + MINUTE_US) for one in candles]
        add_coverage(connection, "BTCUSDT", source, spans)


def verdict(connection: Connection) -> DayVerdict:
    (one,) = compare_day(connection, ["BTCUSDT"], DAY)
    return one


def test_all_who_must_speak_have_spoken_and_nobody_differs(connection: Connection) -> None:
    for source in (Source.KLINE, Source.DUMP_DAILY, Source.REST):
        assert (
            compare_day(connection, ["BTCUSDT"], DAY) == []
            or verdict(connection).verdict == "incomplete"
        )
        say(connection, source, hour())
    found = verdict(connection)
    assert (found.verdict, found.expected_minutes, found.live_minutes) == ("agrees", 60, 60)


def test_each_source_is_counted_where_it_differs_from_what_won(connection: Connection) -> None:
    right, wrong = hour(), hour(2)
    say(connection, Source.KLINE, [*wrong[:1], *right[1:]])
    say(connection, Source.DUMP_MONTHLY, [*right[:10], *wrong[10:13], *right[13:]])
    say(connection, Source.DUMP_DAILY, [*right[:20], *wrong[20:25], *right[25:]])
    say(connection, Source.REST, right)
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


def test_a_fold_that_the_closed_kline_corrected_is_not_what_the_live_path_told(
    connection: Connection,
) -> None:
    folds = [Offer(one, Status.UNCONFIRMED, Source.STREAM) for one in hour(2)]
    merge_offers(connection, folds)
    say(connection, Source.KLINE, hour()[:59])
    say(connection, Source.REST, hour())
    found = verdict(connection)
    assert (found.live_minutes, found.live_differing) == (60, 1)


def test_an_outage_is_expected_of_nobody(connection: Connection) -> None:
    rows = [one for one in hour() if one.open_time_us % HOUR_US >= 10 * MINUTE_US]
    say(connection, Source.DUMP_DAILY, rows)
    say(connection, Source.REST, rows)
    halted = (DAY, DAY + 10 * MINUTE_US)
    record_outage(
        connection, market=Market.SPOT, start_us=halted[0], end_us=halted[1], cause="halt"
    )
    add_coverage(connection, "BTCUSDT", Source.REST, [halted])
    found = verdict(connection)
    assert (found.verdict, found.expected_minutes, found.outage_minutes) == ("agrees", 50, 10)


def test_a_minute_that_a_file_lacks_or_that_is_not_stored_makes_the_day_incomplete(
    connection: Connection,
) -> None:
    say(connection, Source.REST, hour())
    say(connection, Source.DUMP_DAILY, hour()[:59])
    assert verdict(connection).verdict == "incomplete"
    add_coverage(connection, "BTCUSDT", Source.DUMP_DAILY, [(DAY, DAY + HOUR_US + MINUTE_US)])
    add_coverage(connection, "BTCUSDT", Source.REST, [(DAY, DAY + HOUR_US + MINUTE_US)])
    found = verdict(connection)
    assert (found.verdict, found.expected_minutes, found.stored_minutes) == ("incomplete", 61, 60)


def test_verdicts_are_kept_by_symbol_and_day_and_replaced_by_newer_ones(
    connection: Connection,
) -> None:
    say(connection, Source.REST, hour())
    first = verdict(connection)
    record_verdicts(connection, [first])
    later = replace(first, verdict="differs", daily_differing=2)
    record_verdicts(connection, [later])
    assert read_verdicts(connection, ["BTCUSDT"], DAY, DAY + DAY_US) == [later]
    assert read_verdicts(connection, ["BTCUSDT"], DAY + DAY_US, DAY + 2 * DAY_US) == []
    assert has_rows(connection, "BTCUSDT", DAY, DAY + MINUTE_US)
    assert not has_rows(connection, "BTCUSDT", DAY - DAY_US, DAY)
