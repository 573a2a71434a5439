"""The running bar, and what happens to it when only time passes."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

SYMBOL = "HALTUSDT"
MINUTE = timedelta(minutes=1)


def expected_at_build(market: Any, timeframe: Any) -> dict[Any, Any]:
    """Bars of the minutes; none is complete that had not ended when it was built."""
    built_at = market.connection.execute(
        f"SELECT max(built_at) FROM marts.{timeframe.table}"  # noqa: S608
    ).fetchone()[0]
    return {
        key: (*bar[:-1], bar[-1] and bar[0] <= built_at)
        for key, bar in market.expected(timeframe).items()
    }


@pytest.mark.parametrize("halted", [SYMBOL, None])
def test_outage_without_an_end_completes_a_bar_only_after_its_end(
    market: Any, bars_dbt: Any, coarse: Any, long_ago: datetime, halted: str | None
) -> None:
    last = long_ago + 61 * MINUTE
    today = market.connection.execute("SELECT date_trunc('day', now(), 'UTC')").fetchone()[0]
    market.write(SYMBOL, long_ago, 61)
    market.write("ETHUSDT.P", long_ago, 61)
    market.write(SYMBOL, today, 1)
    market.declare_outage(halted, last)
    bars_dbt("run")
    expected = {timeframe: expected_at_build(market, timeframe) for timeframe in coarse}
    assert {timeframe: market.bars(timeframe) for timeframe in coarse} == expected
    hour = last.replace(minute=0)
    assert market.bars(coarse[4])[SYMBOL, hour][-1]

    # The state of a build that ran before these bars had ended.
    for timeframe in coarse:
        market.connection.execute(
            f"UPDATE marts.{timeframe.table} SET is_complete = false"  # noqa: S608
            " WHERE symbol = %s AND open_time <= %s AND next_open_time > %s",
            (SYMBOL, last, last),
        )
    market.connection.execute("UPDATE ops.build_cursors SET built_at = %s", (last,))
    before = market.versions()
    bars_dbt("run")

    for timeframe in coarse:
        bars = market.bars(timeframe)
        assert bars.keys() == expected[timeframe].keys()
        assert all(bars[key] == bar for key, bar in expected[timeframe].items() if key[1] < today)
    rewritten = {symbol for keys in market.rewritten(before).values() for symbol, _ in keys}
    assert rewritten == {SYMBOL}
