"""Queries for captured rows, and waiting for their results."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

Row = tuple[Any, ...]

AGG_TRADES = (
    "SELECT agg_trade_id, price, quantity, first_trade_id, last_trade_id, trade_time, "
    "is_buyer_maker FROM market.agg_trades WHERE symbol = %s ORDER BY agg_trade_id"
)
TRADES = (
    "SELECT trade_id, price, quantity, trade_time, is_buyer_maker, trade_type "
    "FROM market.trades WHERE symbol = %s ORDER BY trade_id"
)


BOOK_TICKERS = "SELECT update_id FROM market.book_tickers WHERE symbol = %s"
BOOK_TICKER_IDS = "SELECT update_id FROM market.book_tickers ORDER BY 1"


async def wait_until(holds: Callable[[], Any], *, timeout_s: float = 120) -> None:
    async with asyncio.timeout(timeout_s):
        while not await holds():
            await asyncio.sleep(0.1)
