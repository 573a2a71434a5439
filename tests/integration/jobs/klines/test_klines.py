"""A backfill ends in the exchange's own rows, whatever the dump site does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import psycopg
import pytest

from include.config import Settings
from include.domain.candles import Candle, CandleCandidate, Source, Status
from include.domain.timeframes import HOUR_US, MINUTE_US, minute_of, to_us
from include.errors import PermanentError
from include.jobs.klines.backfill import (
    backfill,
    load_dump_piece,
    load_rest_piece,
    plan_backfill,
    summarise,
)
from include.store.candles.minutes import merge_candidates, read_candles
from simulator.server import ExchangeThread

Oracle = Callable[[str, int, int], list[Candle]]
FIRST = to_us(datetime(2026, 11, 18, tzinfo=UTC))
LAST = to_us(datetime(2026, 11, 20, 5, 30, tzinfo=UTC))
SYMBOLS = ("BTCUSDT", "ETHBTC", "COSUSDT")


def values(candles: list[Candle]) -> list[tuple[object, ...]]:
    return [(one.open_time_us, *one.values) for one in candles]


def state_of(connection: psycopg.Connection) -> list[tuple[object, ...]]:
    """Everything that a repeat must not change."""
    tables = (
        "market.candles_1m", "ops.coverage", "ops.outages", "ops.discrepancies",
        "ops.candle_changes", "ops.rejected_rows",
    )  # fmt: skip
    return [
        connection.execute(
            f"SELECT count(*), md5(string_agg(t::text, '|' ORDER BY t::text)) FROM {name} AS t"  # noqa: S608
        ).fetchone()
        for name in tables
    ]


def test_backfilled_days_equal_the_exchange_and_a_second_run_changes_nothing(
    settings: Settings, connection: psycopg.Connection, oracle: Oracle
) -> None:
    arguments = {
        "settings": settings,
        "symbols": SYMBOLS,
        "market": "spot",
        "start": FIRST,
        "end": LAST,
    }
    seen = []
    first = backfill(**arguments, on_progress=seen.append)

    assert first.failed == ()
    for symbol in SYMBOLS:
        stored = read_candles(connection, symbol, FIRST, LAST)
        assert values(stored) == values(oracle(symbol, FIRST, LAST))
    sources = connection.execute(
        "SELECT source, count(*) FROM market.candles_1m GROUP BY 1 ORDER BY 1"
    ).fetchall()
    assert sources == [("dump_daily", 3 * 2 * 1440), ("rest", 3 * 330)]
    assert seen[-1].done_minutes == seen[-1].total_minutes == 3 * (2 * 1440 + 330)

    before = state_of(connection)
    second = backfill(**arguments)
    assert (second.plan.dumps, second.plan.rest, second.plan.missing_minutes) == ((), (), 0)
    assert state_of(connection) == before


def test_loading_every_piece_again_changes_nothing(
    settings: Settings, connection: psycopg.Connection
) -> None:
    plan = plan_backfill(settings=settings, symbols="COSUSDT", market="spot", start=FIRST, end=LAST)
    for _ in range(2):
        counts = [load_dump_piece(settings=settings, piece=piece) for piece in plan.dumps]
        counts += [load_rest_piece(settings=settings, piece=piece) for piece in plan.rest]
        total = summarise(counts=counts)
        if total.inserted:
            before = state_of(connection)
    assert (total.inserted, total.changed, total.discrepancies) == (0, 0, 0)
    assert total.offered == 2 * 1440 + 330
    # REST's newer evidence may raise the provenance of its rows, never their values
    assert state_of(connection)[1:] == before[1:]


def test_futures_use_their_own_hosts_and_files(
    settings: Settings, connection: psycopg.Connection, oracle: Oracle
) -> None:
    backfill(settings=settings, symbols="ETHUSDT", market="um", start=FIRST, end=LAST)
    stored = read_candles(connection, "ETHUSDT.P", FIRST, LAST)
    assert values(stored) == values(oracle("ETHUSDT.P", FIRST, LAST))
    assert connection.execute("SELECT DISTINCT time_unit FROM ops.dump_files").fetchall() == [
        ("ms",)
    ]


def test_plan_without_end_reaches_the_last_final_minute(
    settings: Settings, exchange: ExchangeThread
) -> None:
    plan = plan_backfill(settings=settings, symbols="BTCUSDT", market="spot", start="2026-11-20")
    ripe_us = minute_of(exchange.clock.now_us() - 30_000_000)
    assert plan.dumps == ()
    assert ripe_us - plan.rest[-1].end_us <= MINUTE_US
    assert plan.rest[0].label.startswith("BTCUSDT 2026-11-20 00:00..")


def test_minutes_that_the_exchange_never_confirmed_are_loaded_again(
    settings: Settings, connection: psycopg.Connection, oracle: Oracle
) -> None:
    arguments = {
        "settings": settings,
        "symbols": "COSUSDT",
        "market": "spot",
        "start": FIRST,
        "end": FIRST + HOUR_US,
    }
    (right,) = oracle("COSUSDT", FIRST + 7 * MINUTE_US, FIRST + 8 * MINUTE_US)
    wrong = replace(right, trade_count=right.trade_count + 1, volume=right.volume + 1)
    offers = [
        CandleCandidate(replace(wrong, open_time_us=FIRST + n * MINUTE_US), status, Source.STREAM)
        for n, status in ((7, Status.PARTIAL), (8, Status.UNCONFIRMED))
    ]
    merge_candidates(connection, offers)

    first = backfill(**arguments)

    assert first.plan.missing_minutes == 60
    stored = read_candles(connection, "COSUSDT", FIRST, FIRST + HOUR_US)
    assert values(stored) == values(oracle("COSUSDT", FIRST, FIRST + HOUR_US))
    assert plan_backfill(**arguments).missing_minutes == 0


def test_plan_starts_with_the_first_row_of_the_symbol(settings: Settings) -> None:
    plan = plan_backfill(
        settings=settings, symbols="BIFIUSDT", market="spot", start="2020-01-01", end=LAST
    )
    assert min(piece.start_us for piece in plan.dumps) == to_us(datetime(2026, 11, 17, tzinfo=UTC))


def test_unknown_symbol_is_named(settings: Settings) -> None:
    with pytest.raises(PermanentError, match="no symbol 'NOPEUSDT'"):
        plan_backfill(settings=settings, symbols="NOPEUSDT", market="spot", start=FIRST, end=LAST)
