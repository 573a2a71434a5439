"""Liquidations are read by order time, over days, and nothing of the neighbours."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import psycopg

from include.domain.timeframes import DAY_US, SECOND_US
from include.store.trades.captured import LIQUIDATIONS, write_raw
from include.store.trades.liquidation_pages import read_liquidations
from include.store.trades.liquidations import Liquidation

Connection = psycopg.Connection[Any]
AT_US = 1_763_769_590_000_000
"""2025-11-21 23:59:50 UTC."""
ONE = Liquidation(
    "BTCUSDT.P", AT_US, AT_US, AT_US + 7, "BUY", "LIMIT", "IOC", *[Decimal("1.50")] * 5, "FILLED"
)


def test_pages_cover_a_range_over_midnight(connection: Connection) -> None:
    found = [replace(ONE, order_us=AT_US + n * SECOND_US) for n in range(30)]
    others = [replace(one, symbol="ETHUSDT.P") for one in found]
    lines = [LIQUIDATIONS.line([one]) for one in (*others, *found, ONE)]
    write_raw(connection, LIQUIDATIONS, lines)
    start_us, end_us = AT_US + 2 * SECOND_US, AT_US + 20 * SECOND_US

    first = read_liquidations(connection, "BTCUSDT.P", start_us, end_us, limit=10)
    assert first.further_id is not None
    second = read_liquidations(
        connection, "BTCUSDT.P", start_us, end_us, from_id=first.further_id, limit=10
    )

    assert first.liquidations + second.liquidations == found[2:20]
    assert second.further_id is None
    later = read_liquidations(connection, "BTCUSDT.P", end_us + DAY_US, end_us * 2, limit=10)
    assert (later.liquidations, later.further_id) == ([], None)
