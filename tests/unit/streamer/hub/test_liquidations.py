"""Liquidations streamed while readers subscribe, and what a disconnect reports to them."""

from __future__ import annotations

from typing import Any

from include.domain.instruments import Market
from streamer.hub.liquidations import LiquidationFeed
from streamer.hub.ticks import MissedLiquidations
from streamer.hub.trade_hub import LiquidationHub

FRAME = (
    b'{"stream":"btcusdt@forceOrder","data":{"e":"forceOrder","E":1763716800126,"o":{"s":"BTCUSDT",'
    b'"S":"SELL","o":"LIMIT","f":"IOC","q":"0.014","p":"9910","ap":"9900.5","X":"FILLED",'
    b'"l":"0.010","z":"0.014","T":1763716800121}}}'
)
HEARTBEAT = b'{"stream":"btcusdt@markPrice","data":{"e":"markPriceUpdate"}}'


class Connection:
    """Notes what is subscribed."""

    name = "um-liquidations"
    is_open = True

    def __init__(self) -> None:
        self.streams: list[str] = []

    def subscribe(self, streams: list[str]) -> None:
        self.streams += streams


class Clock:
    now_us = 100


async def test_each_liquidation_is_published_once_and_a_disconnect_is_reported() -> None:
    hub, clock, connection = LiquidationHub(linger_s=0), Clock(), Connection()
    with hub.subscribe(["BTCUSDT.P"]) as subscription:
        connect: Any = lambda _: connection  # noqa: E731
        feed = LiquidationFeed(
            Market.UM, hub, connect, names=["BTCUSDT"], now_us=lambda: clock.now_us
        )
        assert connection.streams == ["btcusdt@forceOrder"]
        feed.resubscribe_quiet()  # hours without one are normal
        feed.on_texts([FRAME, FRAME, FRAME.replace(b"BTCUSDT", b"ETHUSDT")])
        (one,) = subscription.drain().ticks
        assert (one.symbol, one.side, one.received_us) == ("BTCUSDT.P", "SELL", 100)
        clock.now_us = 200
        feed.on_texts([HEARTBEAT])
        feed.on_close()
        feed.on_close()
        clock.now_us = 300
        feed.on_held([FRAME], [0.00005])
        found = subscription.drain()
        assert found.ticks == []
        assert found.missed == [MissedLiquidations("BTCUSDT.P", 200, 250, None)]
    assert feed.bad_frames == 0
