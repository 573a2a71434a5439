"""Stored indicators follow their bars, with the same bits as a full build."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from tests.integration.dbt.conftest import BARS
from tests.integration.dbt.walks import START, walk, write

HOUR = timedelta(hours=1)
MODELS = (f"+indicators_1h,{BARS}", f"+indicators_1d,{BARS}", "indicators_1h", "indicators_1d")
Rows = dict[tuple[Any, ...], tuple[Any, ...]]


@pytest.fixture
def build(market: Any, dbt: Any) -> Callable[..., None]:
    """Build bars and indicators."""
    market.connection.execute("SET timezone = 'UTC'")

    def run(*arguments: str) -> None:
        dbt("run", "--select", *MODELS, *arguments)

    return run


def stored(market: Any, timeframe: str) -> Rows:
    rows = market.connection.execute(
        f"SELECT * FROM marts.indicators_{timeframe}"  # noqa: S608
    )
    return {row[:2]: row[2:-1] for row in rows}


def computed(market: Any, timeframe: str) -> Rows:
    rows = market.connection.execute(
        "SELECT s.symbol, i.* FROM (SELECT DISTINCT symbol FROM marts.candles_1d) AS s"
        " CROSS JOIN LATERAL marts.indicators(s.symbol, %s) AS i",
        (timeframe,),
    )
    return {row[:2]: row[2:] for row in rows}


def written(market: Any) -> dict[tuple[Any, ...], Any]:
    rows = market.connection.execute(
        "SELECT symbol, open_time, xmin::text FROM marts.indicators_1h"
    )
    return {row[:2]: row[2] for row in rows}


@pytest.mark.long
def test_incremental_rebuild_equals_a_full_build_bit_for_bit(
    market: Any, build: Callable[..., None]
) -> None:
    bars = walk("AUSDT", 3_600, HOUR)
    write(market.connection, bars[:3_500])
    write(market.connection, walk("BUSDT", 100, HOUR, seed=2)[:40])
    build()

    def changed_and_checked() -> set[tuple[Any, ...]]:
        before = written(market)
        build()
        for timeframe in ("1h", "1d"):
            assert stored(market, timeframe) == computed(market, timeframe)
        after = written(market)
        return {key for key in before | after if before.get(key) != after.get(key)}

    # The newest bars are each computed from the state in the previous row.
    write(market.connection, bars[3_500:3_502])
    assert changed_and_checked() == {("AUSDT", START + n * HOUR) for n in (3_500, 3_501)}
    # A repair affects bars up to the end of the last run whose warm-up contains it.
    raised = [(*row[:3], row[3] * 2, *row[4:]) for row in bars[700:701]]
    write(market.connection, raised)
    assert changed_and_checked() == {("AUSDT", START + n * HOUR) for n in range(700, 2_880)}
    # Bars are removed, others inserted; a young listing completes its warm-up.
    market.delete("AUSDT", START + 1_500 * HOUR, 60 * 30)
    write(market.connection, walk("BUSDT", 100, HOUR, seed=2)[41:60])
    changed = changed_and_checked()
    assert ("BUSDT", START + 39 * HOUR) not in changed
    assert min(time for symbol, time in changed if symbol == "AUSDT") == START + 1_500 * HOUR
    write(market.connection, bars[1_500:1_530])
    write(market.connection, walk("BUSDT", 100, HOUR, seed=2))
    changed_and_checked()

    followed = [stored(market, timeframe) for timeframe in ("1h", "1d")]
    build("--full-refresh")
    assert [stored(market, timeframe) for timeframe in ("1h", "1d")] == followed


def test_indicators_stay_within_a_listing(market: Any, build: Callable[..., None]) -> None:
    former = walk("LUNAUSDT", 300, HOUR, price=80)
    later = walk("LUNAUSDT", 260, HOUR, start=START + 350 * HOUR, price=3, seed=9)
    write(market.connection, former + later)
    write(market.connection, [("ALONEUSDT", *row[1:]) for row in later])
    build()
    mixed = stored(market, "1h")

    for listed, ended in ((START, START + 320 * HOUR), (START + 360 * HOUR, None)):
        market.list_symbol("LUNAUSDT", listed, ended)
    build()

    for timeframe in ("1h", "1d"):
        rows = stored(market, timeframe)
        assert rows == computed(market, timeframe)
        alone = {key[1]: row for key, row in rows.items() if key[0] == "ALONEUSDT"}
        again = {
            key[1]: row for key, row in rows.items() if key[0] == "LUNAUSDT" and key[1] in alone
        }
        assert again == alone
    rows = stored(market, "1h")
    first = ("LUNAUSDT", later[0][1])
    assert rows[first] != mixed[first]
    assert {key: mixed[key] for key in rows if key[1] < later[0][1]} == {
        key: row for key, row in rows.items() if key[1] < later[0][1]
    }


def test_price_of_zero_gives_nulls_and_affects_no_other_symbol(
    market: Any, dbt: Any, build: Callable[..., None]
) -> None:
    fine, faulty = walk("AUSDT", 80, HOUR), walk("BUSDT", 80, HOUR, seed=2)
    worthless = walk("CUSDT", 60, HOUR, price=0)
    write(market.connection, fine + faulty + worthless)
    build()
    before = stored(market, "1h")

    zero = faulty[40]
    write(market.connection, [(*zero[:4], 0, 0, *zero[6:])])
    write(market.connection, [(*fine[79][:5], fine[79][3], *fine[79][6:])])
    build()

    # Quality rules of the minutes report it; the bar itself is right.
    dbt("test", "--select", "candles_1h_keeps_identities candles_1d_keeps_identities")
    rows = stored(market, "1h")
    assert rows == computed(market, "1h")
    assert rows["AUSDT", fine[79][1]] != before["AUSDT", fine[79][1]]
    log_returns = dict(
        market.connection.execute(
            "SELECT open_time, log_return FROM marts.indicators_1h WHERE symbol = 'BUSDT'"
        )
    )
    nothing = {moment for moment, value in log_returns.items() if value is None}
    assert nothing == {START, START + 40 * HOUR, START + 41 * HOUR}
    volatile = market.connection.execute(
        "SELECT array_agg(open_time ORDER BY open_time) FROM marts.indicators_1h"
        " WHERE symbol = 'BUSDT' AND realised_volatility_30 IS NOT NULL"
    ).fetchone()[0]
    # Windows of 30 returns without the two nulls.
    assert volatile == [START + n * HOUR for n in (*range(30, 40), *range(71, 80))]


def test_functions_are_replaced_only_if_their_definition_differs(
    market: Any, dbt: Any, build: Callable[..., None]
) -> None:
    def version() -> Any:
        return market.connection.execute(
            "SELECT xmin::text, obj_description(oid, 'pg_proc') FROM pg_proc"
            " WHERE oid = 'marts.indicators'::regproc"
        ).fetchone()

    write(market.connection, walk("AUSDT", 60, HOUR))
    build()
    market.connection.execute(
        "CREATE VIEW public.kept AS SELECT open_time, ema_50 FROM marts.indicators('AUSDT', '1h')"
    )
    first = version()
    dbt("run", "--select", "indicators")
    assert version() == first
    assert "one row per bar" in first[1]

    market.connection.execute("COMMENT ON FUNCTION marts.indicators IS 'of another definition'")
    dbt("run", "--select", "indicators")

    assert version()[1] == first[1]
    kept = market.connection.execute("SELECT count(ema_50) FROM public.kept").fetchone()
    assert kept == (11,)
