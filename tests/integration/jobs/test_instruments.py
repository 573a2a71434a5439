"""The registry holds what the exchange tells of each listing, filters and all."""

from __future__ import annotations

from decimal import Decimal

import httpx
import psycopg

from include.config import Settings
from include.jobs.instruments import sync_instruments
from simulator.server import ExchangeThread


def test_all_filters_of_both_markets_are_kept_as_the_exchange_writes_them(
    settings: Settings, connection: psycopg.Connection, exchange: ExchangeThread
) -> None:
    counts = sync_instruments(settings=settings)
    assert counts.listed == {"spot": 4, "um": 1}
    hosts = [
        ("spot", f"{exchange.spot_rest_url}/api/v3", ""),
        ("um", f"{exchange.um_rest_url}/fapi/v1", ".P"),
    ]
    for market, url, suffix in hosts:
        answer = httpx.get(f"{url}/exchangeInfo", trust_env=False, timeout=30).raise_for_status()
        for told in answer.json()["symbols"]:
            row = connection.execute(
                "SELECT filters, tick_size, step_size, status FROM market.instruments"
                " WHERE symbol = %s AND market = %s",
                (told["symbol"] + suffix, market),
            ).fetchone()
            assert row is not None
            filters, tick, step, status = row
            assert filters == {
                each["filterType"]: {
                    name: value for name, value in each.items() if name != "filterType"
                }
                for each in told["filters"]
            }
            assert {"PRICE_FILTER", "LOT_SIZE"} < filters.keys()
            assert any("NOTIONAL" in kind for kind in filters)
            assert tick == Decimal(filters["PRICE_FILTER"]["tickSize"])
            assert step == Decimal(filters["LOT_SIZE"]["stepSize"])
            assert status == told["status"]
