"""Only the bars whose minutes changed are rebuilt, and none of them is missed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from psycopg import sql

SYMBOL = "BTCUSDT"
RECENT = datetime(2025, 1, 30, 22, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def assert_marts_hold_the_minutes(market: Any, coarse: Any, schema: str = "marts") -> None:
    for timeframe in coarse:
        assert market.bars(timeframe, schema=schema) == market.expected(timeframe), timeframe.name


def bars_of(coarse: Any, symbol: str, *moments: datetime) -> dict[str, set[tuple[Any, ...]]]:
    """For each timeframe the keys of the bars that hold these moments."""
    from include.domain.timeframes import from_us, to_us

    return {
        timeframe.name: {
            (symbol, from_us(timeframe.open_time_us(to_us(moment)))) for moment in moments
        }
        for timeframe in coarse
    }


@pytest.fixture
def dbt(dbt_of_bars: Any) -> Any:
    return dbt_of_bars


@pytest.fixture
def built(market: Any, dbt: Any, long_ago: datetime) -> Any:
    """Two symbols, years apart and over the end of a month, with their marts."""
    market.write(SYMBOL, long_ago, 200)
    market.write(SYMBOL, RECENT, 200)
    market.write("ETHUSDT.P", RECENT + timedelta(hours=26), 50)
    dbt("run")
    return market


def test_the_first_build_holds_every_bar_whatever_the_zone_of_the_session(
    market: Any, dbt: Any, coarse: Any, long_ago: datetime
) -> None:
    database = sql.Identifier(market.connection.info.dbname)
    market.connection.execute(
        sql.SQL("ALTER DATABASE {} SET timezone = 'America/New_York'").format(database)
    )
    market.write(SYMBOL, long_ago, 60)
    # New York's clocks went forward on 2025-03-09 and its March began five hours after UTC's
    market.write(SYMBOL, datetime(2025, 2, 28, 23, 30, tzinfo=UTC), 60)
    market.write(SYMBOL, datetime(2025, 3, 9, 6, 30, tzinfo=UTC), 60)
    market.write("ETHUSDT.P", datetime(2025, 3, 10, 0, 0, tzinfo=UTC), 7)

    dbt("build")
    assert_marts_hold_the_minutes(market, coarse)
    for timeframe in coarse:
        assert market.bars(timeframe, suffix="_live") == market.expected(timeframe)

    market.write(SYMBOL, datetime(2025, 3, 9, 7, 0, tzinfo=UTC), 1, volume=Decimal(9))
    market.write(SYMBOL, datetime(2025, 3, 1, 0, 1, tzinfo=UTC), 1, volume=Decimal(9))
    dbt("run")
    assert_marts_hold_the_minutes(market, coarse)


def test_one_repaired_minute_of_years_ago_rewrites_one_bar_of_each_timeframe(
    built: Any, dbt: Any, coarse: Any, long_ago: datetime
) -> None:
    before = built.versions()
    repaired = long_ago + timedelta(minutes=101)
    built.write(SYMBOL, repaired, 1, volume=Decimal("7.12345678"))

    dbt("run")

    assert built.rewritten(before) == bars_of(coarse, SYMBOL, repaired)
    assert_marts_hold_the_minutes(built, coarse)


def test_trade_ids_that_arrive_late_reach_the_bars_and_live_views_at_once(
    built: Any, dbt: Any, coarse: Any
) -> None:
    told = RECENT + 31 * MINUTE
    built.connection.execute(
        "UPDATE market.candles_1m SET first_trade_id = first_trade_id + 1,"
        " last_trade_id = last_trade_id + 1 WHERE symbol = %s AND open_time = %s",
        (SYMBOL, told),
    )
    for timeframe in coarse:
        assert built.bars(timeframe, suffix="_live") == built.expected(timeframe)

    before = built.versions()
    dbt("run")

    assert built.rewritten(before) == bars_of(coarse, SYMBOL, told)
    assert_marts_hold_the_minutes(built, coarse)


def test_a_run_without_changes_rewrites_nothing(built: Any, dbt: Any, coarse: Any) -> None:
    before = built.versions()
    dbt("run")
    assert built.rewritten(before) == {timeframe.name: set() for timeframe in coarse}


def test_a_transaction_that_commits_after_the_build_is_seen_by_the_next(
    built: Any, dbt: Any, coarse: Any, long_ago: datetime
) -> None:
    slow, quick = long_ago + timedelta(minutes=3), RECENT + timedelta(minutes=151)
    with psycopg.connect(built.url) as late:
        built.write(SYMBOL, slow, 1, volume=Decimal(11), connection=late)
        # begun later, committed earlier: its id is higher than that of what is still to come
        built.write(SYMBOL, quick, 1, volume=Decimal(12))
        before = built.versions()
        dbt("run")
        assert built.rewritten(before) == bars_of(coarse, SYMBOL, quick)
        before = built.versions()
        late.commit()

    dbt("run")

    assert built.rewritten(before) == bars_of(coarse, SYMBOL, slow)
    assert_marts_hold_the_minutes(built, coarse)


def test_a_rolled_back_write_rewrites_nothing(built: Any, dbt: Any, coarse: Any) -> None:
    before = built.versions()
    with psycopg.connect(built.url) as failing:
        built.write(SYMBOL, RECENT, 5, volume=Decimal(11), connection=failing)
        failing.rollback()
    dbt("run")
    assert not any(built.rewritten(before).values())


def test_deleted_minutes_take_their_bars_along(
    built: Any, dbt: Any, coarse: Any, long_ago: datetime
) -> None:
    built.delete(SYMBOL, long_ago, 200)
    built.delete(SYMBOL, RECENT + timedelta(minutes=30), 45)

    dbt("run")

    assert_marts_hold_the_minutes(built, coarse)
    assert all(
        open_time > long_ago + timedelta(days=300)
        for timeframe in coarse
        for _, open_time in built.bars(timeframe)
    )


def test_an_outage_makes_its_bars_complete_and_its_removal_incomplete_again(
    built: Any, dbt: Any, coarse: Any
) -> None:
    built.delete(SYMBOL, RECENT + timedelta(minutes=60), 7)
    dbt("run")
    hour = (SYMBOL, RECENT + timedelta(hours=1))
    hourly = next(timeframe for timeframe in coarse if timeframe.name == "1h")
    assert built.bars(hourly)[hour][-2:] == (53, False)

    before = built.versions()
    built.connection.execute(
        "INSERT INTO ops.outages (market, symbol, minutes, cause)"
        " VALUES ('spot', NULL, tstzmultirange(tstzrange(%s, %s)), 'maintenance')",
        (RECENT + timedelta(minutes=60), RECENT + timedelta(minutes=67)),
    )
    dbt("run")
    assert built.bars(hourly)[hour][-2:] == (53, True)
    assert_marts_hold_the_minutes(built, coarse)
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
    assert_marts_hold_the_minutes(built, coarse)


def test_a_failed_build_leaves_bars_and_cursor_as_they_were(
    built: Any, dbt: Any, coarse: Any
) -> None:
    before, cursors = built.versions(), built.cursors()
    built.connection.execute(
        "ALTER TABLE marts.candles_15m ADD CONSTRAINT too_much CHECK (volume < 1000) NOT VALID"
    )
    built.write(SYMBOL, RECENT + MINUTE, 1, volume=Decimal(5000))

    assert not dbt.try_to("run").success
    assert built.rewritten(before)["15m"] == set()
    assert built.cursors()["marts.candles_15m", "prod"] == cursors["marts.candles_15m", "prod"]

    built.connection.execute("ALTER TABLE marts.candles_15m DROP CONSTRAINT too_much")
    dbt("run")
    assert_marts_hold_the_minutes(built, coarse)


def test_a_mart_built_after_its_parent_takes_the_parents_cursor(
    built: Any, dbt: Any, coarse: Any
) -> None:
    built.write(SYMBOL, RECENT + MINUTE, 1, volume=Decimal(21))
    dbt("run", "--select", "candles_5m")
    # not in the parent's bars: a child that believed its own clock would never see it
    built.write(SYMBOL, RECENT + 2 * MINUTE, 1, volume=Decimal(22))
    dbt("run", "--select", "candles_15m")

    cursors = built.cursors()
    assert cursors["marts.candles_15m", "prod"] == cursors["marts.candles_5m", "prod"]
    dbt("run")
    assert_marts_hold_the_minutes(built, coarse)


def test_a_full_refresh_gives_the_same_bars_and_keeps_what_depends_on_them(
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
    assert_marts_hold_the_minutes(built, coarse)
    built.connection.execute("SET ROLE candelabra_reader")
    rows = built.connection.execute("SELECT count(*) FROM marts.candles_1h").fetchone()
    built.connection.execute("RESET ROLE")
    mine = built.connection.execute("SELECT count(*) FROM public.mine").fetchone()
    assert rows == mine
    assert rows[0] > 0


def test_a_cursor_of_another_cluster_means_a_full_build(built: Any, dbt: Any, coarse: Any) -> None:
    identifier = built.cursors()["marts.candles_3m", "prod"][0]
    # as after a restore elsewhere: the log is of no use, and its ids may lie in the future
    built.write(SYMBOL, RECENT + MINUTE, 1, volume=Decimal(41))
    built.connection.execute("UPDATE ops.candle_changes SET changed_by = '9999999999'")
    built.connection.execute(
        "UPDATE ops.build_cursors SET system_identifier = '1', snapshot = '8888:8888:'"
    )
    versions = built.versions()

    dbt("run")

    assert_marts_hold_the_minutes(built, coarse)
    assert all(keys == versions[name].keys() for name, keys in built.rewritten(versions).items())
    assert {found for found, _ in built.cursors().values()} == {identifier}
    assert built.connection.execute("SELECT count(*) FROM ops.candle_changes").fetchone() == (0,)


def test_a_mart_whose_parent_was_never_built_here_says_what_to_do(built: Any, dbt: Any) -> None:
    built.connection.execute("DELETE FROM ops.build_cursors WHERE relation = 'marts.candles_5m'")
    before = built.cursors()
    result = dbt.try_to("run", "--select", "candles_15m")
    assert "dbt build --select +candles_15m" in result.result.results[0].message
    assert built.cursors() == before


def test_a_dropped_mart_is_built_in_full_although_its_cursor_remains(
    built: Any, dbt: Any, coarse: Any
) -> None:
    built.connection.execute("DROP TABLE marts.candles_4h CASCADE")
    dbt("run")
    assert_marts_hold_the_minutes(built, coarse)


def test_a_mart_with_other_columns_than_its_model_gets_a_new_table(
    built: Any, dbt: Any, coarse: Any
) -> None:
    built.connection.execute("ALTER TABLE marts.candles_4h DROP COLUMN first_trade_id CASCADE")
    dbt("run")
    assert_marts_hold_the_minutes(built, coarse)


def test_an_empty_build_changes_neither_bars_nor_cursors(built: Any, dbt: Any, coarse: Any) -> None:
    built.write(SYMBOL, RECENT + MINUTE, 1, volume=Decimal(51))
    before, cursors = built.versions(), built.cursors()
    dbt("run", "--empty")
    dbt("run", "--empty", "--full-refresh")
    assert not any(built.rewritten(before).values())
    assert built.cursors() == cursors
    dbt("run")
    assert_marts_hold_the_minutes(built, coarse)


def test_an_empty_first_build_is_followed_by_a_full_one(market: Any, dbt: Any, coarse: Any) -> None:
    market.write(SYMBOL, RECENT, 20)
    dbt("run", "--empty")
    assert market.cursors() == {}
    dbt("run")
    assert_marts_hold_the_minutes(market, coarse)


def test_another_target_has_tables_and_cursors_of_its_own(
    built: Any, dbt: Any, coarse: Any
) -> None:
    built.connection.execute("CREATE SCHEMA marts_dev AUTHORIZATION candelabra_dbt")
    before, cursors = built.versions(), built.cursors()
    built.write(SYMBOL, RECENT + MINUTE, 1, volume=Decimal(61))

    dbt("run", "--target", "dev")

    assert_marts_hold_the_minutes(built, coarse, "marts_dev")
    assert not any(built.rewritten(before).values())
    assert {key: value for key, value in built.cursors().items() if key[1] == "prod"} == cursors
    dbt("run")
    assert_marts_hold_the_minutes(built, coarse)


def test_changes_are_forgotten_once_every_cursor_has_seen_them(built: Any, dbt: Any) -> None:
    def changes() -> int:
        return built.connection.execute("SELECT count(*) FROM ops.candle_changes").fetchone()[0]

    built.write(SYMBOL, RECENT + MINUTE, 1, volume=Decimal(71))
    dbt("run", "--exclude", "candles_1w")
    assert changes() > 0
    dbt("run", "--select", "candles_1w")
    assert changes() == 0


def test_a_forgotten_mart_does_not_hold_the_change_log_back(
    built: Any, dbt: Any, coarse: Any
) -> None:
    built.connection.execute(
        "UPDATE ops.build_cursors SET built_at = now() - interval '31 days'"
        " WHERE relation = 'marts.candles_1w'"
    )
    built.write(SYMBOL, RECENT + MINUTE, 1, volume=Decimal(81))
    dbt("run", "--exclude", "candles_1w")
    count = built.connection.execute("SELECT count(*) FROM ops.candle_changes").fetchone()
    assert count == (0,)
    dbt("run")
    assert_marts_hold_the_minutes(built, coarse)


def test_nothing_is_forgotten_while_a_build_is_under_way(built: Any, dbt: Any) -> None:
    with psycopg.connect(built.url) as building:
        building.execute(
            "SELECT pg_advisory_xact_lock_shared(hashtextextended('candelabra prune', 0))"
        )
        built.write(SYMBOL, RECENT + MINUTE, 1, volume=Decimal(91))
        dbt("run")
        count = built.connection.execute("SELECT count(*) FROM ops.candle_changes").fetchone()
        assert count != (0,)
    dbt("run")
    assert built.connection.execute("SELECT count(*) FROM ops.candle_changes").fetchone() == (0,)


def test_a_view_whose_columns_changed_is_replaced(built: Any, dbt: Any) -> None:
    built.connection.execute("SET ROLE candelabra_dbt")
    built.connection.execute("DROP VIEW marts.candles")
    built.connection.execute("CREATE VIEW marts.candles AS SELECT 1 AS other")
    built.connection.execute("RESET ROLE")
    dbt("run", "--select", "candles")
    assert built.connection.execute(
        "SELECT array_agg(DISTINCT timeframe) @> '{1m,3m,1M}' FROM marts.candles"
    ).fetchone() == (True,)


def test_a_view_that_is_as_it_should_be_is_not_locked(built: Any, dbt: Any) -> None:
    with psycopg.connect(built.url) as reader:
        # a reader in a long transaction: a replacement would wait for it, and others behind it
        reader.execute("SELECT * FROM marts.candles LIMIT 1")
        built.connection.execute("ALTER ROLE candelabra_dbt SET lock_timeout = '2s'")
        try:
            dbt("run")
        finally:
            built.connection.execute("ALTER ROLE candelabra_dbt RESET lock_timeout")
