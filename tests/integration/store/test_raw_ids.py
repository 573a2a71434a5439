"""Where captured rows end, which ids have none, and which instrument they are of."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from include.domain.timeframes import DAY_US, MINUTE_US
from include.store.raw import AGG_TRADES, write_raw
from include.store.raw_ids import IdHole, last_rows, stored_ids

Connection = psycopg.Connection[Any]
AT_US = 1_763_716_800_000_000
"""2025-11-21 09:20 UTC."""


def agg_line(number: int, *, symbol: str = "A", at_us: int | None = None) -> str:
    moment_us = AT_US + number if at_us is None else at_us
    row = (symbol, number, Decimal("2.5"), Decimal("1E-8"), number, number, moment_us, True)
    return AGG_TRADES.line(row)


def test_missing_ids_and_last_rows_are_found_over_days(
    connection: Connection, acting_as: Callable[[str], Any]
) -> None:
    lines = [agg_line(n) for n in (1, 2, 5)]
    lines += [agg_line(8, at_us=AT_US + DAY_US), agg_line(3, symbol="B")]
    write_raw(connection, AGG_TRADES, lines)
    with acting_as("candelabra_streamer"):
        last, missing = stored_ids(connection, AGG_TRADES, ["A", "B", "C"], AT_US)
        assert missing == [
            IdHole("A", 3, 4, AT_US + 2, AT_US + 5),
            IdHole("A", 6, 7, AT_US + 5, AT_US + DAY_US),
        ]
        assert last == {"A": (8, AT_US + DAY_US), "B": (3, AT_US + 3)}
        assert last_rows(connection, AGG_TRADES, ["A", "B", "C"], AT_US) == last
        before = last_rows(connection, AGG_TRADES, ["A"], AT_US, before_us=AT_US + 5)
        assert before == {"A": (2, AT_US + 2)}
        assert last_rows(connection, AGG_TRADES, ["A"], AT_US + 2 * DAY_US) == {}
        assert last_rows(connection, AGG_TRADES, ["A", "B", "C"], None) == last


@pytest.mark.parametrize("later_us", [60 * MINUTE_US, DAY_US])
def test_two_instruments_of_one_name_are_told_apart_by_their_times(
    connection: Connection, later_us: int
) -> None:
    old = [agg_line(n, at_us=AT_US + n) for n in (501, 502, 505)]
    new = [agg_line(n, at_us=AT_US + later_us + n) for n in (7, 8, 11, 12)]
    write_raw(connection, AGG_TRADES, old + new)
    last, missing = stored_ids(connection, AGG_TRADES, ["A"], AT_US)
    assert last == {"A": (12, AT_US + later_us + 12)}
    assert missing == [
        IdHole("A", 503, 504, AT_US + 502, AT_US + 505),
        # trades may be missing between the two; nobody knows how many
        IdHole("A", 506, 505, AT_US + 505, AT_US + later_us + 7),
        IdHole("A", 9, 10, AT_US + later_us + 8, AT_US + later_us + 11),
    ]


def test_a_clock_that_was_set_makes_no_second_instrument(connection: Connection) -> None:
    midnight = AT_US // DAY_US * DAY_US + DAY_US
    times = {1: midnight - 3_000, 2: midnight + 1, 3: midnight - 2_000, 4: midnight + 2}
    write_raw(connection, AGG_TRADES, [agg_line(n, at_us=at) for n, at in times.items()])
    last, missing = stored_ids(connection, AGG_TRADES, ["A"], AT_US)
    assert last == {"A": (4, midnight + 2)}
    # Asked for once more, which costs little; none stands for an unknown number.
    assert [(hole.first_id, hole.last_id) for hole in missing] == [(2, 2), (3, 3)]
