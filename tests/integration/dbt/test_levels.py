"""marts.levels follows the minutes, whichever mart was built last, within one listing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.integration.dbt.conftest import BARS
from tests.integration.dbt.walks import START, Row, simulated, walk, write

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
SHARES = {"0": 0, "23_6": "23.6", "38_2": "38.2", "50": 50, "61_8": "61.8", "78_6": "78.6"}


@pytest.fixture
def build(market: Any, dbt: Any) -> Any:
    return lambda: dbt("run", "--select", f"+levels,{BARS}")


def levels(market: Any) -> dict[str, dict[str, Any]]:
    cursor = market.connection.execute("SELECT * FROM marts.levels")
    names = [column.name for column in cursor.description]
    return {row[0]: dict(zip(names, row, strict=True)) for row in cursor}


def expected(rows: list[Row]) -> dict[str, Any]:
    """Levels computed from the minutes of one listing."""
    traded = [row for row in rows if row[8] > 0]
    high, low = max(row[3] for row in traded), min(row[4] for row in traded)
    last = max(rows, key=lambda row: row[1])
    fibonacci = {
        f"fibonacci_{name}": high - Decimal(share) / 100 * (high - low)
        for name, share in SHARES.items()
    }
    return {
        "symbol": rows[0][0],
        "all_time_high": high,
        "all_time_high_at": min(row[1] for row in traded if row[3] == high),
        "all_time_low": low,
        "all_time_low_at": min(row[1] for row in traded if row[4] == low),
        "last_price": last[5],
        "last_price_at": last[1],
        "position_percent": pytest.approx(float(100 * (last[5] - low) / (high - low))),
        **fibonacci,
        "fibonacci_100": low,
    }


def flat(symbol: str, moment: datetime, price: str, trades: int = 3) -> Row:
    """A minute at one price."""
    value = Decimal(price)
    amount = Decimal(min(trades, 1))
    return (symbol, moment, value, value, value, value, amount, amount * value, trades)


def test_levels_follow_every_change(market: Any, build: Any) -> None:
    connection = market.connection
    cos = simulated("COSUSDT", 2_000)
    old = walk("OLDUSDT", 900, 13 * HOUR, price=60_000, decimals=2)
    write(connection, cos[:1_990] + old)
    # A silent minute is no extreme.
    write(connection, [flat("OLDUSDT", old[-1][1] + MINUTE, "1", trades=0)])
    silent = flat("OLDUSDT", old[-1][1] + MINUTE, "1", trades=0)
    build()
    assert levels(market) == {
        "COSUSDT": expected(cos[:1_990]),
        "OLDUSDT": expected([*old, silent]),
    }

    # Newer than the build: minutes and the open candle.
    peak = flat("COSUSDT", cos[-1][1] + MINUTE, "9.5")
    write(connection, cos[1_990:])
    connection.execute(
        "INSERT INTO ops.live_candles_1 (symbol, open_time, open, high, low, close, volume,"
        " quote_volume, trade_count, taker_buy_volume, taker_buy_quote_volume, is_closed)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, 0, 0, false)",
        peak,
    )
    assert levels(market)["COSUSDT"] == expected([*cos, peak])

    # A repair of the all-time high.
    top = expected(old)["all_time_high_at"]
    repaired = [
        flat("OLDUSDT", row[1], "60000") if row[1] == top else row for row in [*old, silent]
    ]
    write(connection, repaired)
    build()
    assert levels(market)["OLDUSDT"] == expected(repaired)
    assert expected(repaired)["all_time_high_at"] != top
    one = connection.execute("SELECT symbol FROM marts.levels WHERE symbol = 'OLDUSDT'")
    assert one.fetchall() == [("OLDUSDT",)]


def test_levels_use_days_while_their_month_is_not_built(market: Any, build: Any, dbt: Any) -> None:
    rows = simulated("COSUSDT", 600)
    day = rows[0][1].replace(hour=0, minute=0)
    # Neither in the month nor in the hours of the last day.
    rows.append(flat("COSUSDT", day + DAY, "9.5"))
    rows.append(flat("COSUSDT", day + 2 * DAY, "5"))
    write(market.connection, rows[:600])
    build()
    write(market.connection, rows[600:])
    dbt("run", "--select", f"tag:intraday,+levels,{BARS}")
    dbt("run", "--select", "candles_1d")
    assert levels(market) == {"COSUSDT": expected(rows)}


def test_levels_cover_only_the_current_listing(market: Any, build: Any) -> None:
    ended, again = START + 20 * DAY, START + 20 * DAY + 5 * HOUR + 7 * MINUTE
    former = walk("LUNAUSDT", 40, 12 * HOUR, price=80)
    later = walk("LUNAUSDT", 500, HOUR, start=again, price=3)
    # The former listing's lowest price is in the same day.
    write(market.connection, [*former, flat("LUNAUSDT", ended - MINUTE, "0.01"), *later])
    for listed, to in ((START, ended), (again + 9 * HOUR, None)):
        market.list_symbol("LUNAUSDT", listed, to)
    build()
    assert levels(market) == {"LUNAUSDT": expected(later)}


def test_symbol_without_trades_has_no_levels(market: Any, build: Any) -> None:
    write(market.connection, [flat("NEWUSDT", datetime(2025, 5, 1, tzinfo=UTC), "2", trades=0)])
    build()
    assert levels(market) == {}
