"""A build rebuilds every bar whose minutes changed, and no other."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from psycopg import sql

from include.domain.timeframes import from_us, to_us
from tests.integration.dbt.conftest import BARS

SYMBOL = "BTCUSDT"
LONG_AGO = datetime(2019, 2, 27, 11, 0, tzinfo=UTC)
RECENT = datetime(2025, 1, 30, 22, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def bars_of(coarse: Any, symbol: str, *moments: datetime) -> dict[str, set[tuple[Any, ...]]]:
    """For each timeframe the keys of the bars that contain these moments."""
    return {
        timeframe.name: {
            (symbol, from_us(timeframe.open_time_us(to_us(moment)))) for moment in moments
        }
        for timeframe in coarse
    }


@pytest.fixture(scope="module")
def dbt(shared_dbt: Any) -> Any:
    return shared_dbt.selecting(BARS)


@pytest.fixture(scope="module")
def filled(shared_market: Any, dbt: Any) -> Any:
    """Two symbols, years apart and across the end of a month, with their marts."""
    shared_market.write(SYMBOL, LONG_AGO, 200)
    shared_market.write(SYMBOL, RECENT, 200)
    shared_market.write("ETHUSDT.P", RECENT + timedelta(hours=26), 50)
    # Cursors of marts that are not built here would keep changes in the log.
    shared_market.connection.execute(
        "DELETE FROM ops.build_cursors WHERE relation NOT LIKE 'marts.candles%'"
    )
    dbt("run")
    return shared_market


@pytest.fixture
def built(filled: Any, dbt: Any) -> Iterator[Any]:
    """The same; every test ends with marts that equal the minutes."""
    yield filled
    if changes_logged(filled):
        dbt("run")


def changes_logged(market: Any) -> int:
    return int(market.connection.execute("SELECT count(*) FROM ops.candle_changes").fetchone()[0])


@pytest.mark.long
def test_first_build_is_exact_in_every_session_time_zone(unbuilt_market: Any, dbt: Any) -> None:
    market = unbuilt_market
    database = sql.Identifier(market.connection.info.dbname)
    market.connection.execute(
        sql.SQL("ALTER DATABASE {} SET timezone = 'America/New_York'").format(database)
    )
    market.write(SYMBOL, LONG_AGO, 60)
    # New York's clocks went forward on 2025-03-09, and its March began five hours after UTC's.
    market.write(SYMBOL, datetime(2025, 2, 28, 23, 30, tzinfo=UTC), 60)
    market.write(SYMBOL, datetime(2025, 3, 9, 6, 30, tzinfo=UTC), 60)
    market.write("ETHUSDT.P", datetime(2025, 3, 10, 0, 0, tzinfo=UTC), 7)

    dbt.selecting("+candles_live", "+candles")("build")
    market.assert_bars_hold_the_minutes()
    market.assert_bars_hold_the_minutes("_live")

    market.write(SYMBOL, datetime(2025, 3, 9, 7, 0, tzinfo=UTC), 1, volume=Decimal(9))
    market.write(SYMBOL, datetime(2025, 3, 1, 0, 1, tzinfo=UTC), 1, volume=Decimal(9))
    dbt("run")
    market.assert_bars_hold_the_minutes()


def test_repaired_minute_rewrites_one_bar_of_each_timeframe(
    built: Any, dbt: Any, coarse: Any
) -> None:
    before = built.versions()
    repaired = LONG_AGO + timedelta(minutes=101)
    built.write(SYMBOL, repaired, 1, volume=Decimal("7.12345678"))

    dbt("run")

    assert built.rewritten(before) == bars_of(coarse, SYMBOL, repaired)
    built.assert_bars_hold_the_minutes()


def test_late_trade_ids_reach_live_views_and_marts(built: Any, dbt: Any, coarse: Any) -> None:
    late = RECENT + 31 * MINUTE
    built.connection.execute(
        "UPDATE market.candles_1m SET first_trade_id = first_trade_id + 1,"
        " last_trade_id = last_trade_id + 1 WHERE symbol = %s AND open_time = %s",
        (SYMBOL, late),
    )
    built.assert_bars_hold_the_minutes("_live")

    before = built.versions()
    dbt("run")

    assert built.rewritten(before) == bars_of(coarse, SYMBOL, late)
    built.assert_bars_hold_the_minutes()


def test_run_without_changes_rewrites_nothing(built: Any, dbt: Any) -> None:
    before = built.versions()
    with psycopg.connect(built.url) as failing:
        built.write(SYMBOL, RECENT, 5, volume=Decimal(11), connection=failing)
        failing.rollback()
    dbt("run")
    assert not any(built.rewritten(before).values())


def test_transaction_committed_after_a_build_reaches_the_next(
    built: Any, dbt: Any, coarse: Any
) -> None:
    slow, quick = LONG_AGO + timedelta(minutes=3), RECENT + timedelta(minutes=151)
    with psycopg.connect(built.url) as late:
        built.write(SYMBOL, slow, 1, volume=Decimal(11), connection=late)
        # Begun later, committed earlier.
        built.write(SYMBOL, quick, 1, volume=Decimal(12))
        before = built.versions()
        dbt("run")
        assert built.rewritten(before) == bars_of(coarse, SYMBOL, quick)
        before = built.versions()
        late.commit()

    dbt("run")

    assert built.rewritten(before) == bars_of(coarse, SYMBOL, slow)
    built.assert_bars_hold_the_minutes()


def test_deleted_minutes_remove_their_bars(built: Any, dbt: Any, coarse: Any) -> None:
    built.delete(SYMBOL, LONG_AGO, 200)
    built.delete(SYMBOL, RECENT + timedelta(minutes=30), 45)

    dbt("run")

    built.assert_bars_hold_the_minutes()
    assert all(
        open_time > LONG_AGO + timedelta(days=300)
        for timeframe in coarse
        for _, open_time in built.bars(timeframe)
    )
    built.write(SYMBOL, LONG_AGO, 200)
    built.write(SYMBOL, RECENT, 200)


def test_outage_completes_bars_until_it_is_removed(built: Any, dbt: Any, coarse: Any) -> None:
    built.delete(SYMBOL, RECENT + timedelta(minutes=60), 7)
    dbt("run")
    hour = (SYMBOL, RECENT + timedelta(hours=1))
    hourly = next(timeframe for timeframe in coarse if timeframe.name == "1h")
    assert built.bars(hourly)[hour][-2:] == (53, False)

    before = built.versions()
    start = RECENT + timedelta(minutes=60)
    built.declare_outage(None, start, start + 7 * MINUTE)
    dbt("run")
    assert built.bars(hourly)[hour][-2:] == (53, True)
    built.assert_bars_hold_the_minutes()
    assert built.rewritten(before)["1h"] == {hour}

    built.delete(SYMBOL, RECENT + timedelta(minutes=67), 3)
    built.connection.execute(
        "UPDATE ops.outages SET minutes = tstzmultirange(tstzrange(%s, %s))",
        (RECENT + timedelta(minutes=60), RECENT + timedelta(minutes=70)),
    )
    dbt("run")
    assert built.bars(hourly)[hour][-2:] == (50, True)

    built.connection.execute("DELETE FROM ops.outages")
    dbt("run")
    assert built.bars(hourly)[hour][-2:] == (50, False)
    built.assert_bars_hold_the_minutes()
    built.write(SYMBOL, RECENT, 200)


def test_failed_build_changes_neither_bars_nor_cursor(built: Any, dbt: Any) -> None:
    before, cursors = built.versions(), built.cursors()
    built.connection.execute(
        "ALTER TABLE marts.candles_15m ADD CONSTRAINT too_much CHECK (volume < 1000) NOT VALID"
    )
    built.write(SYMBOL, RECENT + MINUTE, 1, volume=Decimal(5000))

    assert not dbt.attempt("run").success
    assert built.rewritten(before)["15m"] == set()
    assert built.cursors()["marts.candles_15m", "prod"] == cursors["marts.candles_15m", "prod"]

    built.connection.execute("ALTER TABLE marts.candles_15m DROP CONSTRAINT too_much")
    dbt("run")
    built.assert_bars_hold_the_minutes()


def test_mart_takes_the_cursor_of_its_parent(built: Any, dbt: Any) -> None:
    built.write(SYMBOL, RECENT + MINUTE, 1, volume=Decimal(21))
    dbt("run", "--select", "candles_5m")
    # Not in the parent's bars: with its own cursor, the child would never see this change.
    built.write(SYMBOL, RECENT + 2 * MINUTE, 1, volume=Decimal(22))
    dbt("run", "--select", "candles_15m")

    cursors = built.cursors()
    assert cursors["marts.candles_15m", "prod"] == cursors["marts.candles_5m", "prod"]
    dbt("run")
    built.assert_bars_hold_the_minutes()


def test_full_refresh_keeps_bars_dependent_views_and_grants(
    built: Any, dbt: Any, coarse: Any
) -> None:
    built.connection.execute(
        "CREATE VIEW public.mine AS SELECT * FROM marts.candles WHERE timeframe = '1h'"
    )
    built.write(SYMBOL, RECENT + timedelta(minutes=50), 20, volume=Decimal(31))
    dbt("run")
    before = {timeframe.name: built.bars(timeframe) for timeframe in coarse}
    versions = built.versions()

    dbt("run", "--full-refresh")

    assert {timeframe.name: built.bars(timeframe) for timeframe in coarse} == before
    assert all(keys == versions[name].keys() for name, keys in built.rewritten(versions).items())
    built.assert_bars_hold_the_minutes()
    built.connection.execute("SET ROLE candelabra_reader")
    rows = built.connection.execute("SELECT count(*) FROM marts.candles_1h").fetchone()
    built.connection.execute("RESET ROLE")
    mine = built.connection.execute("SELECT count(*) FROM public.mine").fetchone()
    built.connection.execute("DROP VIEW public.mine")
    assert rows == mine
    assert rows[0] > 0


def test_cursor_of_another_cluster_causes_a_full_build(built: Any, dbt: Any) -> None:
    identifier = built.cursors()["marts.candles_3m", "prod"][0]
    # As after a restore into another cluster: ids in the log may lie in the future.
    built.write(SYMBOL, RECENT + MINUTE, 1, volume=Decimal(41))
    built.connection.execute("UPDATE ops.candle_changes SET changed_by = '9999999999'")
    built.connection.execute(
        "UPDATE ops.build_cursors SET system_identifier = '1', snapshot = '8888:8888:'"
    )
    versions = built.versions()

    dbt("run")

    built.assert_bars_hold_the_minutes()
    assert all(keys == versions[name].keys() for name, keys in built.rewritten(versions).items())
    assert {found for found, _ in built.cursors().values()} == {identifier}
    assert changes_logged(built) == 0


def test_mart_without_a_built_parent_names_the_command(built: Any, dbt: Any) -> None:
    built.connection.execute("DELETE FROM ops.build_cursors WHERE relation = 'marts.candles_5m'")
    before = built.cursors()
    result = dbt.attempt("run", "--select", "candles_15m")
    assert "dbt build --select +candles_15m" in result.result.results[0].message
    assert built.cursors() == before


def test_dropped_mart_is_built_in_full(built: Any, dbt: Any) -> None:
    built.connection.execute("DROP TABLE marts.candles_4h CASCADE")
    dbt("run", "--select", "candles_4h", "candles_4h_live", "candles")
    built.assert_bars_hold_the_minutes()


def test_mart_with_changed_columns_gets_a_new_table(built: Any, dbt: Any) -> None:
    built.connection.execute("ALTER TABLE marts.candles_4h DROP COLUMN first_trade_id CASCADE")
    dbt("run", "--select", "candles_4h", "candles_4h_live", "candles")
    built.assert_bars_hold_the_minutes()


def test_empty_build_changes_neither_bars_nor_cursors(built: Any, dbt: Any) -> None:
    built.write(SYMBOL, RECENT + MINUTE, 1, volume=Decimal(51))
    before, cursors = built.versions(), built.cursors()
    dbt("run", "--empty")
    dbt("run", "--empty", "--full-refresh")
    assert not any(built.rewritten(before).values())
    assert built.cursors() == cursors
    dbt("run")
    built.assert_bars_hold_the_minutes()


def test_full_build_follows_an_empty_first_build(
    unbuilt_market: Any, dbt: Any, coarse: Any
) -> None:
    market = unbuilt_market
    bars = dbt.selecting("+candles_15m")
    market.write(SYMBOL, RECENT, 20)
    bars("run", "--empty")
    assert market.cursors() == {}
    bars("run")
    assert market.bars(coarse[2]) == market.expected(coarse[2])


def test_target_dev_leaves_marts_cursors_and_log_of_production_alone(
    built: Any, dbt: Any, coarse: Any
) -> None:
    built.connection.execute("CREATE SCHEMA marts_dev AUTHORIZATION candelabra_dbt")
    age = "UPDATE ops.build_cursors SET built_at = built_at {} interval '1 year'"
    # Old enough that a build of production would drop them.
    built.connection.execute(age.format("-"))
    before, cursors = built.versions(), built.cursors()
    built.write(SYMBOL, RECENT + MINUTE, 1, volume=Decimal(61))

    dbt("run", "--target", "dev", "--select", "path:models/staging", "candles_3m", "candles_5m")

    for timeframe in coarse[:2]:
        assert built.bars(timeframe, schema="marts_dev") == built.expected(timeframe)
    assert not any(built.rewritten(before).values())
    assert {key: value for key, value in built.cursors().items() if key[1] == "prod"} == cursors
    assert ("marts_dev.candles_5m", "dev") in built.cursors()
    assert changes_logged(built) > 0
    built.connection.execute("DELETE FROM ops.build_cursors WHERE target = 'dev'")
    built.connection.execute(age.format("+"))


def test_changes_are_pruned_once_every_cursor_has_seen_them(built: Any, dbt: Any) -> None:
    built.write(SYMBOL, RECENT + MINUTE, 1, volume=Decimal(71))
    dbt("run", "--select", BARS, "--exclude", "candles_1w")
    assert changes_logged(built) > 0
    dbt("run", "--select", "candles_1w")
    assert changes_logged(built) == 0


def test_unused_cursor_does_not_block_pruning(built: Any, dbt: Any) -> None:
    built.connection.execute(
        "UPDATE ops.build_cursors SET built_at = now() - interval '31 days'"
        " WHERE relation = 'marts.candles_1w'"
    )
    built.write(SYMBOL, RECENT + MINUTE, 1, volume=Decimal(81))
    dbt("run", "--select", BARS, "--exclude", "candles_1w")
    assert changes_logged(built) == 0
    dbt("run")
    built.assert_bars_hold_the_minutes()


def test_running_build_blocks_pruning(built: Any, dbt: Any) -> None:
    with psycopg.connect(built.url) as building:
        building.execute(
            "SELECT pg_advisory_xact_lock_shared(hashtextextended('candelabra prune', 0))"
        )
        built.write(SYMBOL, RECENT + MINUTE, 1, volume=Decimal(91))
        dbt("run")
        assert changes_logged(built) > 0
    dbt("run")
    assert changes_logged(built) == 0


def test_view_with_changed_columns_is_replaced(built: Any, dbt: Any) -> None:
    built.connection.execute("SET ROLE candelabra_dbt")
    built.connection.execute("DROP VIEW marts.candles")
    built.connection.execute("CREATE VIEW marts.candles AS SELECT 1 AS other")
    built.connection.execute("RESET ROLE")
    dbt("run", "--select", "candles")
    assert built.connection.execute(
        "SELECT array_agg(DISTINCT timeframe) @> '{1m,3m,1M}' FROM marts.candles"
    ).fetchone() == (True,)


def test_unchanged_view_is_not_locked(built: Any, dbt: Any) -> None:
    with psycopg.connect(built.url) as reader:
        # A replacement would wait for this reader and block new ones.
        reader.execute("SELECT * FROM marts.candles LIMIT 1")
        built.connection.execute("ALTER ROLE candelabra_dbt SET lock_timeout = '2s'")
        try:
            dbt("run", "--select", "candles")
        finally:
            built.connection.execute("ALTER ROLE candelabra_dbt RESET lock_timeout")
