"""A hub with running aggregators that publish to it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from decimal import Decimal

from include.binance.streams.messages import AggTrade
from include.domain.candles import CandleCandidate, Source, Status
from include.domain.instruments import Instrument, Market
from include.domain.timeframes import MINUTE_US
from streamer.candles.aggregation import SymbolAggregator
from streamer.hub.hub import Hub
from tests.unit.streamer.played_exchange import T0, Results, aggregator, begin, kline_of

OTHER = Instrument(
    "XRPUSDT", Market.SPOT, "XRP", "USDT", "TRADING", Decimal("0.01"), Decimal("0.00001")
)


class HubEvents(Results):
    """Publishes closed candles to the hub, as the streamer does."""

    def __init__(self, hub: Hub) -> None:
        super().__init__()
        self.hub = hub

    def candle_closed(self, candidate: CandleCandidate) -> None:
        super().candle_closed(candidate)
        self.hub.publish_closed(candidate)


def listed(hub: Hub, heard: HubEvents, *instruments: Instrument) -> list[SymbolAggregator]:
    """Aggregators at work, which the hub listens to."""
    made = [aggregator(heard, instrument=one) for one in instruments] or [aggregator(heard)]
    for one in made:
        begin(one)
        hub.add(one)
    return made


def rest_candidate(trades: list[AggTrade], minute: int, **changes: object) -> CandleCandidate:
    candle = kline_of(trades, T0 + minute * MINUTE_US, closed=True, at_us=0).candle("BTCUSDT")
    changed = replace(candle, **changes)  # type: ignore[arg-type]
    return CandleCandidate(changed, Status.VERIFIED, Source.REST, T0 + 99 * MINUTE_US)


async def turn() -> None:
    """Let marks reach the subscriptions."""
    await asyncio.sleep(0)
