"""cryptofeed as a reader of a tape: its Binance feed, its trade callback, no database.

Runs in an environment of its own (``requirements-bench.txt``), on its own loop (uvloop) and with
its own defaults: ``python cryptofeed.py WS_URL REST_URL TRADES``. Only the endpoints differ from
its use against the exchange; its connections require ``wss://``, so the URL is replaced by
``ws://`` afterwards: no reader here pays for TLS.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from cryptofeed import FeedHandler
from cryptofeed.connection import RestEndpoint, Routes, WebsocketEndpoint
from cryptofeed.defines import TRADES
from cryptofeed.exchanges import Binance


def feed_class(ws_url: str, rest_url: str) -> type[Binance]:
    """cryptofeed's Binance feed with other endpoints."""

    class Local(Binance):
        def connect(self):
            made = super().connect()
            for connection, *_ in made:
                connection.address = connection.address.replace("wss://", "ws://")
            return made

    Local.websocket_endpoints = [WebsocketEndpoint(ws_url.replace("ws://", "wss://"))]
    Local.rest_endpoints = [RestEndpoint(rest_url, routes=Routes("/api/v3/exchangeInfo"))]
    return Local


def main(ws_url: str, rest_url: str, wanted: int) -> None:
    """Count trades of all symbols up to a number."""
    local = feed_class(ws_url, rest_url)
    handler = FeedHandler(config={"log": {"disabled": True}, "uvloop": True})
    count = 0

    async def on_trade(trade, receipt_timestamp) -> None:
        nonlocal count
        count += 1
        if count == wanted:
            told = {"event": "done", "frames": count, "at_us": time.time_ns() // 1_000}
            print(json.dumps(told), flush=True)
            handler.request_stop()

    symbols = local.symbols()
    asyncio.set_event_loop(asyncio.new_event_loop())
    handler.add_feed(local(symbols=symbols, channels=[TRADES], callbacks={TRADES: on_trade}))
    handler.run()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
