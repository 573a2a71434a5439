"""Bars stay within one listing, and a snapshot keeps the terms of instruments."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from include.domain.timeframes import from_us, to_us

TICKER = "LUNAUSDT"
OTHER = "BTCUSDT"
LISTED = datetime(2021, 3, 1, tzinfo=UTC)
BEGIN = datetime(2025, 1, 30, 21, 57, tzinfo=UTC)
LAST = BEGIN + timedelta(minutes=40)
ENDED = LAST + timedelta(minutes=10, seconds=7)  # recorded in market.instruments
AGAIN = ENDED.replace(second=0) + timedelta(minutes=33)  # the first minute of the next listing
NOTICED = AGAIN + timedelta(hours=9)


@pytest.fixture
def dbt(bars_dbt: Any) -> Any:
    return bars_dbt


@pytest.fixture
def met(market: Any) -> Any:
    """Minutes of a ticker with two listings, and of a symbol with one."""
    market.write(TICKER, BEGIN, 40)
    market.write(TICKER, AGAIN, 90)
    market.write(OTHER, BEGIN, 200)
    market.list_symbol(OTHER, LISTED, seen_at=LISTED)
    market.list_symbol(TICKER, LISTED, seen_at=LISTED)
    return market


def relist(market: Any) -> None:
    market.connection.execute(
        "UPDATE market.instruments SET listed_to = %s WHERE symbol = %s", (ENDED, TICKER)
    )
    market.list_symbol(TICKER, NOTICED, seen_at=NOTICED)


def expected(market: Any, timeframe: Any) -> dict[tuple[Any, ...], Any]:
    """Bars of the minutes; the bar with the relisting lacks earlier minutes."""
    bars = market.expected(timeframe)
    meeting = (TICKER, from_us(timeframe.open_time_us(to_us(AGAIN))))
    with market.connection.transaction(force_rollback=True):
        market.delete(TICKER, BEGIN, 43)
        return {**bars, meeting: market.expected(timeframe)[meeting]}


def test_bar_with_two_listings_contains_only_the_later_until_one_is_removed(
    met: Any, dbt: Any, coarse: Any
) -> None:
    dbt("build")
    met.assert_bars_hold_the_minutes()
    before = met.versions()

    relist(met)
    dbt("build")

    changed = {name: keys for name, keys in met.rewritten(before).items() if keys}
    differing = set()
    for timeframe in coarse:
        assert met.bars(timeframe) == expected(met, timeframe), timeframe.name
        if met.bars(timeframe) != met.expected(timeframe):
            differing.add(timeframe.name)
    assert {"2h", "1d", "3d", "1w", "1M"} <= differing
    assert differing <= changed.keys()
    assert all(len(keys) == 1 and next(iter(keys))[0] == TICKER for keys in changed.values())

    met.connection.execute("DELETE FROM market.instruments WHERE listed_from = %s", (NOTICED,))
    met.connection.execute("UPDATE market.instruments SET listed_to = NULL")
    dbt("run")
    met.assert_bars_hold_the_minutes()


@pytest.mark.long
def test_order_of_minutes_registry_and_builds_does_not_matter(
    met: Any, dbt: Any, coarse: Any
) -> None:
    relist(met)
    met.delete(TICKER, AGAIN, 90)
    dbt("run")  # only minutes of the former listing are stored
    met.assert_bars_hold_the_minutes()
    met.write(TICKER, AGAIN + timedelta(minutes=30), 60)
    dbt("run")
    met.write(TICKER, AGAIN, 90)
    dbt("run")
    for timeframe in coarse:
        assert met.bars(timeframe) == expected(met, timeframe), timeframe.name
    dbt("run", "--full-refresh")
    for timeframe in coarse:
        assert met.bars(timeframe) == expected(met, timeframe), timeframe.name


def test_snapshot_keeps_terms_with_their_times(met: Any, dbt: Any) -> None:
    def change(filters: dict[str, Any], at: datetime) -> None:
        met.connection.execute(
            "UPDATE market.instruments SET filters = %s, seen_at = %s WHERE symbol = %s",
            (Jsonb(filters), at, TICKER),
        )
        dbt("build", "--select", "stg_market__instruments instruments_history")

    first = {"LOT_SIZE": {"stepSize": "0.1"}, "NOTIONAL": {"minNotional": "10.00000000"}}
    second = {"LOT_SIZE": {"stepSize": "0.1"}, "NOTIONAL": {"minNotional": "5.00000000"}}
    change(first, LISTED + timedelta(days=1))
    change(first, LISTED + timedelta(days=2))
    change(second, LISTED + timedelta(days=3))
    kept = met.connection.execute(
        "SELECT filters, dbt_valid_from, dbt_valid_to FROM marts.instruments_history"
        " WHERE symbol = %s ORDER BY dbt_valid_from",
        (TICKER,),
    ).fetchall()
    naive = [LISTED + timedelta(days=day) for day in (1, 3)]
    assert [(row[0], row[1]) for row in kept] == list(zip((first, second), naive, strict=True))
    assert [row[2] for row in kept] == [naive[1], None]

    relist(met)
    dbt("build", "--select", "stg_market__instruments instruments_history")
    listings = met.connection.execute(
        "SELECT listed_from, count(*) FROM marts.instruments_history WHERE symbol = %s"
        " GROUP BY 1 ORDER BY 1",
        (TICKER,),
    ).fetchall()
    # Two versions of the former listing, and its end.
    assert listings == [(LISTED, 3), (NOTICED, 1)]
    ended, unended = (
        met.connection.execute(
            "SELECT listed_to, dbt_valid_from, dbt_valid_to FROM marts.instruments_history"
            " WHERE symbol = %s AND listed_from = %s ORDER BY dbt_valid_from DESC LIMIT 2",
            (TICKER, LISTED),
        )
    ).fetchall()
    assert ended[0] is not None
    assert ended[2] is None
    assert unended == (None, naive[1], ended[1])
    dbt("build", "--select", "stg_market__instruments instruments_history")
    assert met.connection.execute(
        "SELECT count(*) FROM marts.instruments_history WHERE symbol = %s", (TICKER,)
    ).fetchone() == (4,)
