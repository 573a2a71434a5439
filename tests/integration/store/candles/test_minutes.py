"""Reads of candles."""

from __future__ import annotations

import time
from typing import Any

import psycopg
import pytest

from include.domain.candles import CandleCandidate, Source, Status
from include.domain.instruments import Market
from include.domain.timeframes import MINUTE_US
from include.errors import PermanentError
from include.store.candles.minutes import (
    first_minutes,
    last_minutes,
    merge_candidates,
    minutes_to_request,
    missing_minutes,
    read_candles,
)
from include.store.ledgers.files import record_outage
from tests.unit.store.candidates import NOVEMBER_END_US, candidate, candle, moved

Connection = psycopg.Connection[Any]


def minute(number: int) -> int:
    return NOVEMBER_END_US + number * MINUTE_US


def test_candles_are_read_exactly_in_order_from_a_half_open_range(connection: Connection) -> None:
    of = [
        moved(candidate(of=candle(price=f"10.0000000{n}", ids=(1, n))), "A", n) for n in range(1, 5)
    ]
    merge_candidates(connection, reversed(of))

    read = read_candles(connection, "A", minute(2), minute(4))

    assert read == [of[1].candle, of[2].candle]
    assert [str(each.open) for each in read] == ["10.00000002", "10.00000003"]


def test_last_minute_is_found_over_partitions(connection: Connection) -> None:
    merge_candidates(connection, [moved(candidate(), "A", n) for n in (-90_000, 0, 1)])
    merge_candidates(connection, [moved(candidate(), "B", -90_000)])

    assert last_minutes(connection, ["A", "B", "C"]) == {"A": minute(1), "B": minute(-90_000)}


def test_rows_later_than_the_present_do_not_count(connection: Connection) -> None:
    """Else a streamer would continue after a wrong time, and request nothing before it."""
    merge_candidates(connection, [moved(candidate(), "A", n) for n in (0, 1, 500)])

    assert last_minutes(connection, ["A"], now_us=minute(2)) == {"A": minute(1)}
    assert minutes_to_request(connection, ["A"], minute(0), now_us=minute(2)) == {}
    assert minutes_to_request(connection, ["A"], minute(0)) == {"A": [(minute(2), minute(500))]}


def test_first_minute_is_returned_for_symbols_without_an_earlier_one(
    connection: Connection,
) -> None:
    merge_candidates(connection, [moved(candidate(), "OLD", n) for n in (-90_000, 3, 4)])
    merge_candidates(connection, [moved(candidate(), "NEW", n) for n in (6, 5)])
    symbols = ["OLD", "NEW", "NONE"]
    assert first_minutes(connection, symbols, minute(3)) == {"NEW": minute(5)}
    assert first_minutes(connection, symbols, minute(5)) == {"NEW": minute(5)}
    assert first_minutes(connection, symbols, minute(6)) == {}


def test_minutes_without_row_or_outage_are_missing(connection: Connection) -> None:
    merge_candidates(connection, [moved(candidate(Source.KLINE), "A.P", n) for n in (0, 1, 4, 9)])
    for market, symbol, start, end in [
        (Market.UM, None, 5, 6),
        (Market.UM, "A.P", 7, 8),
        (Market.UM, "B.P", 2, 3),
        (Market.SPOT, None, 3, 4),
    ]:
        record_outage(
            connection,
            market=market,
            symbol=symbol,
            start_us=minute(start),
            end_us=minute(end),
            cause="halt",
        )

    missing = missing_minutes(connection, "A.P", minute(-1), minute(11))

    assert [((a - minute(0)) // MINUTE_US, (b - minute(0)) // MINUTE_US) for a, b in missing] == [
        (-1, 0),
        (2, 4),
        (6, 7),
        (8, 9),
        (10, 11),
    ]


def test_every_minute_of_an_unknown_symbol_is_missing(connection: Connection) -> None:
    assert missing_minutes(connection, "X", minute(0), minute(5)) == [(minute(0), minute(5))]
    assert missing_minutes(connection, "X", minute(5), minute(5)) == []


def test_bounds_must_be_full_minutes(connection: Connection) -> None:
    with pytest.raises(PermanentError, match="open times"):
        missing_minutes(connection, "X", minute(0) + 1, minute(5))


def unsure(number: int, symbol: str, status: Status = Status.UNCONFIRMED) -> CandleCandidate:
    return moved(candidate(Source.STREAM, status=status), symbol, number)


def numbers(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    return [((a - minute(0)) // MINUTE_US, (b - minute(0)) // MINUTE_US) for a, b in ranges]


def test_rows_that_are_not_verified_are_missing_on_request(connection: Connection) -> None:
    merge_candidates(connection, [moved(candidate(Source.KLINE), "A", n) for n in (0, 3)])
    merge_candidates(connection, [unsure(1, "A"), unsure(2, "A", Status.PARTIAL)])

    assert numbers(missing_minutes(connection, "A", minute(0), minute(5))) == [(4, 5)]
    assert numbers(missing_minutes(connection, "A", minute(0), minute(5), unsure=True)) == [
        (1, 3),
        (4, 5),
    ]


def test_unverified_minutes_end_at_the_newest_row_of_each_symbol(connection: Connection) -> None:
    known = {
        "MISSING": (-90_000, -1, 0, 1, 4, 5, 9),
        "YOUNG.P": (3, 6),
        "OLD": (-90_000, 2),
        "PAST": (-3, -1),
        "SURE": (0, 1, 2),
    }
    for symbol, minutes in known.items():
        merge_candidates(connection, [moved(candidate(Source.KLINE), symbol, n) for n in minutes])
    merge_candidates(connection, [unsure(5, "YOUNG.P"), unsure(7, "YOUNG.P", Status.PARTIAL)])
    merge_candidates(connection, [unsure(2, "MISSING"), unsure(-2, "MISSING")])

    asked = minutes_to_request(connection, [*known, "NEW"], minute(0))

    assert {symbol: numbers(ranges) for symbol, ranges in asked.items()} == {
        "MISSING": [(2, 4), (6, 9)],
        "YOUNG.P": [(4, 6), (7, 8)],
        "OLD": [(0, 2)],
    }
    assert minutes_to_request(connection, [], minute(0)) == {}


def test_outages_are_not_requested(connection: Connection) -> None:
    for symbol in ("A.P", "B.P", "C"):
        merge_candidates(connection, [moved(candidate(Source.KLINE), symbol, n) for n in (0, 9)])
    for symbol, start, end in [(None, 2, 4), ("A.P", 3, 6), ("B.P", -5, 2), ("B.P", 8, 20)]:
        record_outage(
            connection,
            market=Market.UM,
            symbol=symbol,
            start_us=minute(start),
            end_us=minute(end),
            cause="halt",
        )

    asked = minutes_to_request(connection, ["A.P", "B.P", "C"], minute(0))

    assert {symbol: numbers(ranges) for symbol, ranges in asked.items()} == {
        "A.P": [(1, 2), (6, 9)],
        "B.P": [(4, 8)],
        "C": [(1, 9)],
    }


def test_start_must_be_a_full_minute(connection: Connection) -> None:
    with pytest.raises(PermanentError, match="open time"):
        minutes_to_request(connection, ["A"], minute(0) + 1)


def test_minute_far_in_the_future_is_refused(connection: Connection) -> None:
    now_us = time.time_ns() // 1_000 // MINUTE_US * MINUTE_US
    tomorrow = moved(candidate(), "A", (now_us - NOVEMBER_END_US) // MINUTE_US + 1_430)
    merge_candidates(connection, [tomorrow])
    later = moved(candidate(), "B", (now_us - NOVEMBER_END_US) // MINUTE_US + 3 * 1_440)

    with pytest.raises(PermanentError, match=r"candle of B at .* lies in the future"):
        merge_candidates(connection, [tomorrow, later])

    assert read_candles(connection, "B", 0, now_us + 9 * 1_440 * MINUTE_US) == []
