"""cryptofeed: feeds of both futures markets, in an environment of Python 3.13."""

import asyncio
from typing import Any

from cryptofeed import FeedHandler
from cryptofeed.connection import RestEndpoint, WebsocketEndpoint
from cryptofeed.defines import (
    CANDLES,
    FUNDING,
    L2_BOOK,
    LIQUIDATIONS,
    OPEN_INTEREST,
    TRADES,
)
from cryptofeed.exchanges import BinanceDelivery, BinanceFutures
from program import command, run

FEEDS = {"um": BinanceFutures, "cm": BinanceDelivery}
CHANNELS = (TRADES, CANDLES, FUNDING, OPEN_INTEREST, LIQUIDATIONS, L2_BOOK)


def point_at(urls: dict[str, str]) -> None:
    """The library's base URLs are class attributes; its connections need TLS."""
    for market, feed in FEEDS.items():
        feed.websocket_endpoints = [WebsocketEndpoint(urls[f"{market}_ws_url"])]
        (rest,) = feed.rest_endpoints
        feed.rest_endpoints = [RestEndpoint(urls[f"{market}_rest_url"], routes=rest.routes)]


@command
def contract_streams(urls: dict[str, str], wanted: int) -> Any:
    """What callbacks of each channel get, as text; books as update id and best ten levels."""
    point_at(urls)
    handler = FeedHandler(config={"log": {"disabled": True}})
    found: dict[str, list[Any]] = {}
    enough = {OPEN_INTEREST: 2, CANDLES: 2}

    def note(market: str, channel: str, row: Any) -> None:
        rows = found[f"{market} {channel}"]
        if len(rows) < enough.get(channel, wanted):
            rows.append(row)
            if all(
                len(kept) >= enough.get(name.split()[1], wanted) for name, kept in found.items()
            ):
                handler.request_stop()

    def callback(market: str, channel: str) -> Any:
        async def call(event: Any, _receipt_timestamp: float) -> None:
            note(market, channel, event.to_dict(numeric_type=str) | {"raw": event.raw})

        async def book(event: Any, _receipt_timestamp: float) -> None:
            sides = [
                [[str(price), str(side[price])] for price in side.keys()[:10]]
                for side in (event.book.bids, event.book.asks)
            ]
            note(market, channel, [event.sequence_number, *sides])

        return book if channel == L2_BOOK else call

    asyncio.set_event_loop(asyncio.new_event_loop())
    for market, feed in FEEDS.items():
        found |= {f"{market} {channel}": [] for channel in CHANNELS}
        symbol = next(name for name in feed.symbols() if name.startswith("BTC-") and "PERP" in name)
        handler.add_feed(
            feed(
                symbols=[symbol],
                channels=list(CHANNELS),
                callbacks={channel: callback(market, channel) for channel in CHANNELS},
                candle_interval="1m",
                candle_closed_only=True,
                open_interest_interval=1.0,
            )
        )
    handler.run()
    return found


if __name__ == "__main__":
    run()
