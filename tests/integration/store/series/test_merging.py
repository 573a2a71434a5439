"""One merge for all derivative series: any order of writes leaves the same rows and ledger."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from psycopg import sql

from include.domain.series.kinds import TABLES, Series
from include.errors import PermanentError
from include.store.series.merging import SeriesRow, merge_series

Connection = psycopg.Connection[Any]

T0 = datetime(2026, 11, 1, tzinfo=UTC)
SYMBOL = "BTCUSDT.P"


def at(minutes: int) -> datetime:
    return T0 + timedelta(minutes=minutes)


def mark(close: str, source: str, evidence: int, *, status: str = "verified") -> SeriesRow:
    return (SYMBOL, T0, "100", "110", "90", close, status, source, at(evidence))


def rows_of(connection: Connection, series: Series) -> list[tuple[Any, ...]]:
    columns = sql.SQL(", ").join(map(sql.Identifier, TABLES[series].columns))
    return connection.execute(
        sql.SQL("SELECT {} FROM {} ORDER BY 1, 2").format(
            columns, sql.Identifier("market", TABLES[series].table)
        )
    ).fetchall()


def ledger(connection: Connection) -> list[tuple[Any, ...]]:
    return connection.execute(
        "SELECT series, symbol, time, loser_source, loser_status, loser_evidence_at, loser_values"
        " FROM ops.series_discrepancies ORDER BY 1, 2, 3, loser_values"
    ).fetchall()


def forget(connection: Connection) -> None:
    for table in TABLES.values():
        connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier("market", table.table)))
    connection.execute("DELETE FROM ops.series_discrepancies")


def test_declaration_in_sql_equals_that_in_python(connection: Connection) -> None:
    declared = {
        one[0]: one[1:]
        for one in connection.execute(
            "SELECT series, relation, time_column, extract(epoch FROM step) * 1000000,"
            " value_columns, value_units, carried_columns, filled_columns, sources FROM ops.series"
        )
    }
    assert declared == {
        series.value: (
            table.table,
            table.time,
            table.step_us,
            list(table.values),
            [Decimal(unit) for unit in table.units],
            list(table.carried),
            list(table.filled),
            list(table.sources),
        )
        for series, table in TABLES.items()
    }


def test_rest_wins_over_files_and_files_over_the_stream(connection: Connection) -> None:
    offers = [
        mark("95", "rest", 1),
        mark("96", "dump_daily", 9),
        mark("97", "dump_monthly", 99),
        mark("98", "stream", 999, status="unconfirmed"),
    ]
    for order in itertools.permutations(offers):
        forget(connection)
        for offer in order:
            merge_series(connection, Series.MARK, [offer])
        assert rows_of(connection, Series.MARK)[0][5:8] == (Decimal(95), "verified", "rest")
        assert [row[-1]["close"] for row in ledger(connection)] == [96, 97, 98]


def test_equal_values_raise_the_provenance_only(connection: Connection) -> None:
    merge_series(connection, Series.MARK, [mark("95", "dump_monthly", 1)])
    before = connection.execute("SELECT updated_at FROM market.mark_prices_1m").fetchone()

    counts = merge_series(connection, Series.MARK, [mark("95.00", "rest", 2)])

    assert (counts.confirmed, counts.changed, counts.discrepancies) == (1, 0, 0)
    row = connection.execute(
        "SELECT source, revision, updated_at FROM market.mark_prices_1m"
    ).fetchone()
    assert before is not None
    assert row == ("rest", 0, before[0])


def test_offering_again_changes_nothing(connection: Connection) -> None:
    offers = [mark("95", "rest", 1), mark("96", "rest", 2)]
    merge_series(connection, Series.MARK, offers)
    before = rows_of(connection, Series.MARK), ledger(connection)

    counts = merge_series(connection, Series.MARK, offers)

    assert (counts.inserted, counts.changed, counts.confirmed, counts.discrepancies) == (0, 0, 0, 0)
    assert (rows_of(connection, Series.MARK), ledger(connection)) == before


def test_rest_and_file_meet_in_one_settlement(connection: Connection) -> None:
    by_rest = (SYMBOL, T0, "0.0001", T0 + timedelta(milliseconds=2), "64000.5", None,
               "verified", "rest", at(9))  # fmt: skip
    by_file = (SYMBOL, T0, "0.00010000", T0 + timedelta(milliseconds=3), None, 8,
               "verified", "dump_monthly", at(99))  # fmt: skip
    for order in itertools.permutations([by_rest, by_file]):
        forget(connection)
        for offer in order:
            merge_series(connection, Series.FUNDING, [offer])
        (row,) = rows_of(connection, Series.FUNDING)
        assert row[2:6] == (
            Decimal("0.0001"), T0 + timedelta(milliseconds=2), Decimal("64000.5"), 8,
        )  # fmt: skip
        assert row[7] == "rest"
        assert ledger(connection) == []


def test_a_file_with_more_digits_replaces_rest_without_a_discrepancy(
    connection: Connection,
) -> None:
    by_rest = (SYMBOL, T0, "1.2345", "1.1", "0.9", "1", "verified", "rest", at(99))
    by_file = (SYMBOL, T0, "1.23459876", "1.1", "0.9", "1", "verified", "dump_daily", at(9))
    for order in itertools.permutations([by_rest, by_file]):
        forget(connection)
        for offer in order:
            merge_series(connection, Series.RATIOS, [offer])
        assert rows_of(connection, Series.RATIOS)[0][2] == Decimal("1.23459876")
        assert ledger(connection) == []


def test_a_row_with_unknown_cells_loses_to_a_whole_one(connection: Connection) -> None:
    whole = (SYMBOL, T0, "1.2", "1.1", "0.9", "1", "verified", "rest", at(1))
    holed = (SYMBOL, T0, None, None, "0.9", "1", "partial", "dump_daily", at(9))
    for order in itertools.permutations([whole, holed]):
        forget(connection)
        for offer in order:
            merge_series(connection, Series.RATIOS, [offer])
        assert rows_of(connection, Series.RATIOS)[0][2:4] == (Decimal("1.2"), Decimal("1.1"))
        ((*_, source, status, _, _),) = ledger(connection)
        assert (source, status) == ("dump_daily", "partial")


def random_offers(series: Series, dice: random.Random) -> list[SeriesRow]:
    """Offers for two times, whose values contradict each other often."""
    offers: list[SeriesRow] = []
    for _ in range(7):
        when, evidence = at(dice.choice([0, 60])), at(dice.choice([1, 2]))
        source = dice.choice(["rest", "dump_daily", "dump_monthly"])
        number = dice.choice(["1", "2", "2.0"])
        if series is Series.FUNDING:
            known = dice.random() < 0.5
            settled = when + timedelta(milliseconds=dice.choice([0, 3]))
            mark_price, hours = ("64000", None) if known else (None, 8)
            rate = f"0.000{number[0]}"
            offers.append(
                (SYMBOL, when, rate, settled, mark_price, hours, "verified", source, evidence)
            )
        elif series is Series.OPEN_INTEREST:
            value = dice.choice([None, "10", "20"])
            status = "partial" if value is None else "verified"
            offers.append((SYMBOL, when, number, value, status, source, evidence))
        elif series is Series.RATIOS:
            cells = [dice.choice([None, "1", "2"]) for _ in range(4)]
            status = "partial" if None in cells else "verified"
            offers.append((SYMBOL, when, *cells, status, source, evidence))
        else:
            source = dice.choice([source, "stream"])
            status = dice.choice(["partial", "unconfirmed"]) if source == "stream" else "verified"
            offers.append((SYMBOL, when, "1", "3", "1", number, status, source, evidence))
    return offers


@pytest.mark.parametrize("series", list(Series))
@pytest.mark.parametrize("seed", range(4))
def test_any_order_and_grouping_gives_the_same_rows(
    connection: Connection, series: Series, seed: int
) -> None:
    dice = random.Random(f"{series}{seed}")
    offers = random_offers(series, dice)
    seen = []
    for _ in range(6):
        forget(connection)
        dice.shuffle(offers)
        at_once = dice.choice([1, 2, len(offers)])
        for first in range(0, len(offers), at_once):
            merge_series(connection, series, offers[first : first + at_once])
        seen.append((rows_of(connection, series), ledger(connection)))
    assert all(one == seen[0] for one in seen)


@pytest.mark.parametrize(
    "row",
    [
        (SYMBOL, T0, "100", "99", "90", "95", "verified", "rest", T0),
        (SYMBOL, T0, "100", "NaN", "90", "95", "verified", "rest", T0),
        (SYMBOL, T0, "0", "1", "0", "1", "verified", "rest", T0),
        (SYMBOL, T0 + timedelta(seconds=1), "1", "1", "1", "1", "verified", "rest", T0),
        (SYMBOL, T0, "1", "1", "1", "1", "verified", "stream", T0),
    ],
    ids=["high below open", "NaN", "zero", "not a minute", "stream is not verified"],
)
def test_a_row_that_breaks_a_rule_is_refused(connection: Connection, row: SeriesRow) -> None:
    with pytest.raises(PermanentError):
        merge_series(connection, Series.MARK, [row])


def test_a_row_of_the_future_is_refused(connection: Connection) -> None:
    later = datetime.now(UTC).replace(second=0, microsecond=0) + timedelta(days=2)
    with pytest.raises(PermanentError, match="future"):
        merge_series(
            connection, Series.MARK, [(SYMBOL, later, "1", "1", "1", "1", "verified", "rest", T0)]
        )


@pytest.mark.parametrize("role", ["candelabra_jobs", "candelabra_streamer"])
def test_writers_may_merge(
    connection: Connection, acting_as: Callable[[str], Any], role: str
) -> None:
    with acting_as(role) as acting:
        merge_series(acting, Series.MARK, [mark("95", "rest", 1), mark("96", "dump_daily", 1)])
        merge_series(acting, Series.MARK, [mark("96", "rest", 2)])
    assert rows_of(connection, Series.MARK)[0][5] == 96


def test_two_writers_of_one_row_keep_the_better_one(
    connection: Connection, connect_again: Callable[[str], Connection]
) -> None:
    other = connect_again("other")
    merge_series(connection, Series.MARK, [mark("94", "dump_monthly", 1)])
    with other.transaction():
        merge_series(other, Series.MARK, [mark("95", "rest", 1)])
    merge_series(connection, Series.MARK, [mark("96", "dump_daily", 5)])
    assert rows_of(connection, Series.MARK)[0][5] == 95
