"""Broken promises are seen although the table is right."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from include.domain.timeframes import MINUTE_US, SECOND_US, to_us
from include.store.ledgers.gaps import close_gap, open_gap
from streamer.candles.events import AFTER_DATABASE_OUTAGE
from tests.chaos.oracle.meanwhile.promises import (
    closed_by_unconfirmed,
    closed_too_early,
    lost_between_memory_and_table,
    repaired_too_early,
    still_dead,
)

SYMBOL = "BTCUSDT"
MINUTE = 1_000_000 * MINUTE_US
TRUE: dict[str, dict[int, tuple[Decimal, ...]]] = {SYMBOL: {MINUTE: (), MINUTE + MINUTE_US: ()}}


class Delivered:
    def __init__(self, *whole_us: int) -> None:
        self._whole_us = whole_us

    def is_whole(self, _symbol: str, minute_us: int) -> bool:
        return minute_us in self._whole_us


def gap(connection: psycopg.Connection, cause: str = "connection lost") -> int:
    return open_gap(
        connection, symbol=SYMBOL, start_us=MINUTE, end_us=MINUTE + 3 * MINUTE_US, cause=cause
    )


@pytest.mark.parametrize(
    ("by", "is_right"),
    [("kline", True), ("kline and rest", True), ("rest and stream", False), (None, True)],
)
def test_only_verified_candles_close_a_gap(
    database_url: str, by: str | None, is_right: bool
) -> None:
    with psycopg.connect(database_url) as connection:
        close_gap(connection, gap(connection))
        connection.execute("UPDATE ops.gaps SET repaired_by = %s", (by,))
    assert (closed_by_unconfirmed(database_url) == []) is is_right


def test_minute_of_a_closed_gap_counts_if_the_exchange_has_it() -> None:
    seen = [(SYMBOL, MINUTE), (SYMBOL, MINUTE + 9 * MINUTE_US), ("OTHER", MINUTE)]
    (found,) = closed_too_early(seen, TRUE, {})
    assert found.startswith("BTCUSDT ")
    assert closed_too_early(seen, TRUE, {SYMBOL: MINUTE}) == []


def test_delivered_minute_is_not_requested_after_a_database_outage(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        gap(connection)
    whole = Delivered(MINUTE + MINUTE_US, MINUTE + 2 * MINUTE_US)
    assert lost_between_memory_and_table(database_url, TRUE, whole) == []
    with psycopg.connect(database_url) as connection:
        gap_id = open_gap(
            connection, symbol=SYMBOL, start_us=MINUTE, end_us=MINUTE + 4 * MINUTE_US,
            cause=AFTER_DATABASE_OUTAGE,
        )  # fmt: skip
        close_gap(connection, gap_id)
    (found,) = lost_between_memory_and_table(database_url, TRUE, whole)
    assert "missing after PostgreSQL was away" in found
    assert lost_between_memory_and_table(database_url, TRUE, Delivered()) == []


def log(*events: str) -> list[Mapping[str, Any]]:
    return [{"event": event, "symbol": SYMBOL} for event in events]


def test_streams_of_a_trading_symbol_are_not_dead_in_the_calm() -> None:
    dead = log("streaming_started", "stream_dead")
    assert still_dead(dead, [SYMBOL]) == ["BTCUSDT: its streams are called dead"]
    assert still_dead(dead, []) == []
    assert still_dead([*dead, *log("stream_revived")], [SYMBOL]) == []
    assert still_dead([*dead, *log("streaming_started")], [SYMBOL]) == []


@pytest.mark.parametrize(
    ("seconds", "is_early"), [(1, True), (19, True), (31, False), (-90, False)]
)
def test_minute_is_not_repaired_before_its_row_is_final(seconds: int, is_early: bool) -> None:
    end_us = to_us(datetime(2026, 1, 5, tzinfo=UTC))
    entry = {
        "timestamp": datetime.now(UTC).isoformat(),
        "error": "BTCUSDT 2026-01-04 23:59..2026-01-05 00:00: 1 minutes have no final row yet; …",
    }
    other = {**entry, "error": "PostgreSQL could not do it now"}
    found = repaired_too_early([entry, other], lambda _ns: end_us + seconds * SECOND_US)
    assert len(found) == is_early
