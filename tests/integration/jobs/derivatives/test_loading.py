"""Derivative series by files and by REST equal the exchange's own, whatever the order of loads."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from psycopg import sql

from include.config import Settings
from include.domain.series.kinds import TABLES, Series
from include.domain.timeframes import to_us
from include.jobs.derivatives.loading import load_series_piece
from include.jobs.derivatives.pieces import (
    SeriesFilePiece,
    SeriesPiece,
    SeriesPlan,
    SeriesRestPiece,
)
from include.jobs.derivatives.planning import plan_series
from include.jobs.klines.pieces import LoadCounts
from include.store.series.coverage import series_gaps
from simulator.server import ExchangeThread
from tests.integration.jobs.derivatives.conftest import NOW, STARTED, Oracle

Connection = psycopg.Connection[Any]

SYMBOL = "XLMUSDT.P"
SPAN = (datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 4, 6, tzinfo=UTC))
PRICES = (Series.MARK, Series.INDEX, Series.PREMIUM)


def planned(
    settings: Settings,
    *series: Series,
    symbol: str = SYMBOL,
    start: datetime | None = SPAN[0],
    end: datetime | None = SPAN[1],
) -> SeriesPlan:
    return plan_series(settings=settings, symbols=symbol, series=series, start=start, end=end)


def load(settings: Settings, pieces: Sequence[SeriesPiece]) -> LoadCounts:
    return sum(
        (load_series_piece(settings=settings, piece=piece) for piece in pieces), LoadCounts()
    )


def by_rest(series: Series, start: datetime, end: datetime) -> SeriesRestPiece:
    return SeriesRestPiece(SYMBOL, "rest", series.value, to_us(start), to_us(end))


def stored(
    connection: Connection,
    series: Series,
    columns: Sequence[str],
    *,
    symbol: str = SYMBOL,
    span: tuple[datetime, datetime] = SPAN,
) -> list[tuple[Any, ...]]:
    table = TABLES[series]
    return connection.execute(
        sql.SQL(
            "SELECT {time}, {} FROM {}"
            " WHERE symbol = %s AND {time} >= %s AND {time} < %s ORDER BY 1"
        ).format(
            sql.SQL(", ").join(map(sql.Identifier, columns)),
            sql.Identifier("market", table.table),
            time=sql.Identifier(table.time),
        ),
        (symbol, *span),
    ).fetchall()


@pytest.mark.parametrize("series", PRICES)
def test_prices_by_files_and_by_rest_equal_the_oracle(
    settings: Settings, connection: Connection, oracle: Oracle, series: Series
) -> None:
    plan = planned(settings, series)
    assert {type(one) for one in plan.pieces} == {SeriesFilePiece, SeriesRestPiece}
    expected = oracle(SYMBOL, series, *SPAN)

    counts = load(settings, plan.pieces)

    assert stored(connection, series, TABLES[series].values) == expected
    assert (counts.inserted, counts.discrepancies) == (len(expected), 0)
    assert planned(settings, series).pieces == ()

    # the whole span by REST: the same values, a higher rank
    counts = load(settings, [by_rest(series, *SPAN)])

    assert (counts.changed, counts.discrepancies) == (0, 0)
    assert stored(connection, series, TABLES[series].values) == expected
    assert {row[1] for row in stored(connection, series, ["source"])} == {"rest"}


def test_funding_by_files_and_rest_equals_the_oracle_at_every_change_of_the_interval(
    settings: Settings, connection: Connection, oracle: Oracle
) -> None:
    span = (STARTED, NOW)
    plan = planned(settings, Series.FUNDING, start=None, end=None)
    assert [one.source for one in plan.pieces if isinstance(one, SeriesFilePiece)] == [
        "dump_monthly",
        "dump_monthly",
    ]

    counts = load(settings, plan.pieces)

    columns = ("funding_rate", "funding_time", "mark_price", "interval_hours")
    rows = stored(connection, Series.FUNDING, columns, span=span)
    expected = oracle(SYMBOL, Series.FUNDING, *span)
    assert [row[:4] for row in rows] == expected
    assert counts.discrepancies == 0
    # two changes within the files; November is known by REST alone, which has no interval
    in_files = [row[4] for row in rows if row[0] < datetime(2026, 11, 1, tzinfo=UTC)]
    assert {1, 4} == set(in_files)
    assert [row[4] for row in rows[len(in_files) :]] == [None] * (len(rows) - len(in_files))
    assert series_gaps(connection, Series.FUNDING, SYMBOL, *map(to_us, span)) == []


def test_open_interest_by_files_and_rest_equals_the_oracle(
    settings: Settings, connection: Connection, oracle: Oracle
) -> None:
    load(settings, planned(settings, Series.OPEN_INTEREST, Series.RATIOS).pieces)

    expected = oracle(SYMBOL, Series.OPEN_INTEREST, *SPAN)
    assert stored(connection, Series.OPEN_INTEREST, ["open_interest"]) == expected
    assert len(stored(connection, Series.RATIOS, ["account_ratio"])) == len(expected)
    by_source = connection.execute(
        "SELECT source, count(*) FROM market.open_interest_5m GROUP BY 1 ORDER BY 1"
    ).fetchall()
    assert [source for source, _ in by_source] == ["dump_daily", "rest"]

    # REST has fewer digits: the rows of files stay, and none of it is a discrepancy
    counts = load(
        settings, [by_rest(series, *SPAN) for series in (Series.OPEN_INTEREST, Series.RATIOS)]
    )
    assert (counts.changed, counts.discrepancies) == (0, 0)
    assert stored(connection, Series.OPEN_INTEREST, ["open_interest"]) == expected


@pytest.mark.parametrize("seed", range(2))
def test_any_order_of_loads_gives_the_same_rows(
    settings: Settings, connection: Connection, seed: int
) -> None:
    wanted = (Series.FUNDING, Series.MARK, Series.OPEN_INTEREST, Series.RATIOS)
    pieces = [*planned(settings, *wanted).pieces, *(by_rest(one, *SPAN) for one in wanted)]
    seen = []
    for _ in range(2):
        random.Random(seed).shuffle(pieces)
        pieces.reverse()
        load(settings, pieces)
        kept = {one: [*TABLES[one].columns[2:-1]] for one in wanted}
        seen.append([stored(connection, one, kept[one]) for one in wanted])
        for name in ("ops.series_discrepancies", "ops.series_coverage"):
            connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(*name.split("."))))
        for one in wanted:
            connection.execute(
                sql.SQL("DELETE FROM {}").format(sql.Identifier("market", TABLES[one].table))
            )
    assert seen[0] == seen[1]
    assert all(rows for rows in seen[0])


# --- faults


def move_clock(exchange: ExchangeThread, to: datetime) -> None:
    """Move the stopped clock."""
    exchange.clock._start_us = to_us(to)


def fault(exchange: ExchangeThread, kind: str, **parameters: object) -> str:
    entry = {"kind": kind, "market": "um", "symbols": ["XLMUSDT"], **parameters}
    return exchange.faults.add(entry)[0]


def rejected(connection: Connection) -> list[tuple[str, int]]:
    return connection.execute(
        "SELECT reason, count(*) FROM ops.rejected_rows GROUP BY 1 ORDER BY 1"
    ).fetchall()


def test_a_missing_day_is_replaced_by_rest_while_it_has_it(
    settings: Settings, connection: Connection, exchange: ExchangeThread, oracle: Oracle
) -> None:
    exchange.faults.add({"kind": "missing_day", "files": "*/metrics/*2026-11-02*"})
    load(settings, planned(settings, Series.OPEN_INTEREST).pieces)
    assert stored(connection, Series.OPEN_INTEREST, ["open_interest"]) == oracle(
        SYMBOL, Series.OPEN_INTEREST, *SPAN
    )


def test_an_old_day_without_a_file_shows_as_lacked_by_the_exchange(
    settings: Settings, connection: Connection, exchange: ExchangeThread
) -> None:
    exchange.faults.add({"kind": "missing_day", "files": "*/metrics/*2026-09-04*"})
    span = (datetime(2026, 9, 3, tzinfo=UTC), datetime(2026, 9, 6, tzinfo=UTC))
    load(settings, planned(settings, Series.OPEN_INTEREST, start=span[0], end=span[1]).pieces)

    (gap,) = series_gaps(connection, Series.OPEN_INTEREST, SYMBOL, *map(to_us, span))

    assert (gap.start_us, gap.missing, gap.reason) == (
        to_us(datetime(2026, 9, 4, tzinfo=UTC)), 288, "exchange_lacks",
    )  # fmt: skip
    assert planned(settings, Series.OPEN_INTEREST, start=span[0], end=span[1]).pieces == ()
    assert connection.execute(
        "SELECT verdict FROM ops.dump_files WHERE path LIKE '%2026-09-04.zip'"
    ).fetchall() == [("missing",)]


def test_negative_open_interest_is_rejected_and_the_hole_is_known(
    settings: Settings, connection: Connection, exchange: ExchangeThread, oracle: Oracle
) -> None:
    fault(exchange, "negative_open_interest", duration_s=1800)
    move_clock(exchange, NOW + timedelta(days=1))
    span = (NOW - timedelta(hours=12), NOW + timedelta(hours=8))

    load(settings, planned(settings, Series.OPEN_INTEREST, start=span[0], end=span[1]).pieces)

    expected = [row for row in oracle(SYMBOL, Series.OPEN_INTEREST, *span) if row[1] >= 0]
    rows = stored(connection, Series.OPEN_INTEREST, ["open_interest"], span=span)
    assert 0 < len(expected) < 240
    assert rows == expected
    assert "open_interest is negative" in dict(rejected(connection))
    (gap,) = series_gaps(connection, Series.OPEN_INTEREST, SYMBOL, *map(to_us, span))
    assert (gap.missing, gap.reason) == (240 - len(expected), "exchange_lacks")


def test_duplicate_missing_and_unsorted_rows_of_files_leave_whole_series(
    settings: Settings, connection: Connection, exchange: ExchangeThread, oracle: Oracle
) -> None:
    fault(exchange, "duplicate_rows", duration_s=600)
    fault(exchange, "unsorted_rows", duration_s=600)
    pieces = planned(settings, Series.MARK, Series.OPEN_INTEREST).pieces
    counts = load(settings, pieces)
    assert counts.rejected == 0
    for series in (Series.MARK, Series.OPEN_INTEREST):
        columns = TABLES[series].values[:4] if series is Series.MARK else ["open_interest"]
        assert stored(connection, series, columns) == oracle(SYMBOL, series, *SPAN)


def test_empty_cells_are_unknown_and_not_zero(
    settings: Settings, connection: Connection, exchange: ExchangeThread
) -> None:
    fault(exchange, "empty_cells", duration_s=600)
    pieces = [
        one
        for one in planned(settings, Series.RATIOS).pieces
        if isinstance(one, SeriesFilePiece) and "2026-11-02" in one.path
    ]
    load(settings, pieces)

    rows = stored(connection, Series.RATIOS, [*TABLES[Series.RATIOS].values, "status"])
    partial = [row for row in rows if row[-1] == "partial"]
    assert len(rows) == 288
    assert partial
    assert all(None in row[1:5] and Decimal(0) not in row[1:5] for row in partial)

    load(settings, [by_rest(Series.RATIOS, *SPAN)])
    rows = stored(connection, Series.RATIOS, [*TABLES[Series.RATIOS].values, "status"])
    assert {row[-1] for row in rows} == {"verified"}


def test_a_missing_settlement_is_a_hole_and_a_changed_interval_is_none(
    settings: Settings, connection: Connection, exchange: ExchangeThread
) -> None:
    fault(exchange, "funding_interval", hours=4)
    move_clock(exchange, NOW + timedelta(days=2))
    fault(exchange, "missing_settlement", duration_s=3 * 3600)
    move_clock(exchange, NOW + timedelta(days=5))

    load(settings, planned(settings, Series.FUNDING, end=None).pieces)

    gaps = series_gaps(
        connection, Series.FUNDING, SYMBOL, to_us(SPAN[0]), to_us(NOW + timedelta(days=5))
    )
    assert [(one.missing, one.reason) for one in gaps] == [(1, "exchange_lacks")]


def test_rows_that_rest_does_not_have_yet_are_asked_for_again(
    settings: Settings, connection: Connection, exchange: ExchangeThread, oracle: Oracle
) -> None:
    span = (NOW - timedelta(hours=6), NOW)
    lag = fault(exchange, "series_lag")
    for series in (Series.MARK, Series.OPEN_INTEREST):
        load(settings, planned(settings, series, start=span[0], end=None).pieces)
        assert 0 < len(stored(connection, series, ["source"], span=span)) < 200

    exchange.faults.remove(lag)
    move_clock(exchange, NOW + timedelta(hours=1))

    for series in (Series.MARK, Series.OPEN_INTEREST):
        load(settings, planned(settings, series, start=span[0], end=None).pieces)
        columns = TABLES[series].values if series is Series.MARK else ["open_interest"]
        assert stored(connection, series, columns, span=span) == oracle(SYMBOL, series, *span)


def test_a_file_published_again_is_loaded_again(
    settings: Settings, connection: Connection, exchange: ExchangeThread
) -> None:
    load(settings, planned(settings, Series.MARK).pieces)
    exchange.faults.add({"kind": "reissued", "files": "*/markPriceKlines/*2026-11-02*"})

    again = planned(settings, Series.MARK).pieces

    assert [one.why for one in again] == ["published again"]
