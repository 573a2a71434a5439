"""``/api/v1/statistics``: figures of streams and readers, from memory."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from include.domain.timeframes import from_us
from serving.http.context import context_of
from serving.http.formats import json

router = APIRouter(tags=["health"])


@router.get("/statistics", summary="Figures of streams and readers")
async def statistics(request: Request) -> Response:
    """`market`: a streamer's connections to the exchange and candle counts; for a separate server,
    its
    connection to the streamer. `readers`: of this process. Counts are since its start.
    """
    context = context_of(request)
    now_us = context.now_us()
    readers: dict[str, Any] = {
        "websockets": context.sockets.open,
        "websockets_accepted": context.sockets.accepted,
        "websocket_bars_conflated": context.sockets.conflated(),
        "subscriptions": context.live_bars.subscribers,
        "bars_conflated": context.live_bars.conflated,
    }
    if (ticks := context.ticks) is not None:
        readers |= {
            "trade_readers": ticks.trades.subscribers,
            "trade_symbols": len(ticks.trades.wanted),
            "book_readers": ticks.book_tickers.subscribers,
            "book_symbols": len(ticks.book_tickers.wanted),
        }
        if (liquidations := ticks.liquidations) is not None:
            readers |= {
                "liquidation_readers": liquidations.subscribers,
                "liquidation_symbols": len(liquidations.wanted),
            }
    return json(
        request,
        {
            "exchange_time": from_us(now_us) if now_us else None,
            "symbols": len(list(context.streamed())),
            "market": context.statistics(),
            "readers": readers,
        },
        headers={"cache-control": "no-store"},
    )
