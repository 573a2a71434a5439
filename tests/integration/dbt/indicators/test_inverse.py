"""VWAP of COIN-M is a price: contract size × contracts / amount of the base asset."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from include.domain.instruments import Instrument, Market
from include.domain.timeframes import to_us
from include.store.instruments import write_instruments
from tests.integration.dbt.conftest import BARS
from tests.integration.dbt.walks import START, walk, write

SYMBOL = "BTCUSD_PERP"
SIZE = Decimal(100)
HOURS = 30


def inverse(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """The minute with whole contracts and the base amount at the middle of its prices."""
    symbol, at, *prices, volume, _, count = row
    contracts = Decimal(int(volume) + 1)
    price = (prices[1] + prices[2]) / 2
    return (symbol, at, *prices, contracts, round(SIZE * contracts / price, 8), count)


def test_vwap_of_inverse_contracts_lies_within_the_prices(market: Any, dbt: Any) -> None:
    connection = market.connection
    listed = Instrument(
        SYMBOL, Market.CM, "BTC", "USD", "TRADING", Decimal("0.1"), Decimal(1), contract_size=SIZE
    )
    write_instruments(connection, [listed], to_us(START))
    rows = [inverse(row) for row in walk(SYMBOL, HOURS, timedelta(hours=1), price=60_000)]
    write(connection, rows)
    dbt("run", "--select", BARS, "path:models/marts/indicators")
    for relation, first in (("marts.indicators_1h", 0), ("marts.indicators_1d", 0)):
        found = connection.execute(
            f"SELECT open_time, vwap FROM {relation} WHERE symbol = %s ORDER BY 1",  # noqa: S608
            (SYMBOL,),
        ).fetchall()
        assert found
        for at, vwap in found[first:]:
            day = [one for one in rows if one[1].date() == at.date()]
            done = day if relation.endswith("1d") else [one for one in day if one[1] <= at]
            wanted = SIZE * sum(one[6] for one in done) / sum(one[7] for one in done)
            assert vwap == pytest.approx(float(wanted), rel=1e-12)
    (last,) = connection.execute(
        "SELECT vwap FROM marts.indicators(%s, '1h') ORDER BY open_time DESC LIMIT 1", (SYMBOL,)
    ).fetchone()
    assert 30_000 < last < 120_000
