"""Which symbols are streamed, of several streamers that say so, or do not."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from include.domain.candles import Source, Status
from include.domain.timeframes import MINUTE_US
from include.store.candles.resumed_minutes import MinutesRequest, StoredMinute
from serving.bars.subscription import Bars, BarUpdate
from serving.sources.nats.connection import NatsConnection
from serving.sources.nats.market import NatsMarket
from serving.sources.nats.streamed_symbols import CACHE_TTL_S, StreamedByStreamer
from serving.sources.nats.wire import MessageEncoder
from streamer.hub.subscription import Batch
from tests.unit.serving.sources.nats.test_minute_states import T0, minute


def test_symbols_of_all_streamers_count_as_streamed() -> None:
    streamed = StreamedByStreamer()
    streamed.on_heartbeat("a", ["BTCUSDT", "ETHUSDT"])
    streamed.on_heartbeat("b", ["ETHUSDT"])
    known = streamed.symbols
    assert known == {"BTCUSDT", "ETHUSDT"}
    streamed.on_heartbeat("a", ["ETHUSDT", "BTCUSDT"])
    assert streamed.symbols is known  # said again, and nothing new
    streamed.on_heartbeat("a", [])
    assert streamed.symbols == {"ETHUSDT"}


def test_published_symbol_counts_as_streamed_until_the_streamer_omits_it() -> None:
    streamed = StreamedByStreamer()
    assert streamed.on_symbol("old", "BTCUSDT")
    assert not streamed.on_symbol("old", "BTCUSDT")
    streamed.on_heartbeat("new", [])
    streamed.on_symbol("new", "ETHUSDT")
    assert streamed.symbols == {"BTCUSDT", "ETHUSDT"}
    streamed.on_heartbeat("new", [])
    assert streamed.symbols == {"BTCUSDT"}


def test_symbols_of_a_silent_streamer_expire_late() -> None:
    streamed = StreamedByStreamer()
    streamed.on_heartbeat("a", ["BTCUSDT"])
    streamed.on_heartbeat("b", ["ETHUSDT"])
    streamed.on_silence("a", 100.0)
    streamed.on_silence("b", 100.0)
    streamed.on_silence("nobody", 100.0)
    streamed.expire(100.0 + CACHE_TTL_S)
    assert streamed.symbols == {"BTCUSDT", "ETHUSDT"}
    streamed.on_return("b")
    streamed.expire(101.0 + CACHE_TTL_S)
    assert streamed.symbols == {"ETHUSDT"}


# --- what a server makes of it


def market_of(*stored: int) -> NatsMarket:
    """A server, and the minutes that are in its table."""

    def read(_requests: Mapping[str, MinutesRequest], _first_us: int) -> list[StoredMinute]:
        return [StoredMinute(minute(one), Status.VERIFIED, Source.KLINE) for one in stored]

    return NatsMarket(NatsConnection("nats://127.0.0.1:1", name="test"), read, clock=lambda: 0.0)


def deliver(market: NatsMarket, encoder: MessageEncoder, index: int) -> None:
    for _, payload in encoder.candles(Bars([BarUpdate("1m", minute(index))], [])):
        market._on_candles(payload)


def beat(market: NatsMarket, encoder: MessageEncoder, *symbols: str) -> None:
    encoder.streamed = frozenset(symbols)
    market._on_heartbeat(encoder.heartbeat())


async def taken(market: NatsMarket) -> Batch:
    async with asyncio.timeout(5):
        batch = await market.changes().receive()
    assert batch is not None
    return batch


async def test_heartbeats_add_and_remove_symbols() -> None:
    market, encoder = market_of(), MessageEncoder("a", 1, ["1m"])
    beat(market, encoder, "BTCUSDT", "ETHUSDT")
    assert market.streamed() == ["BTCUSDT", "ETHUSDT"]
    assert (await taken(market)).streamed == {"BTCUSDT", "ETHUSDT"}
    deliver(market, encoder, 5)
    batch = await taken(market)
    assert (batch.streamed, len(batch.updates)) == (None, 1)
    assert market.newest("BTCUSDT") is not None
    beat(market, encoder, "ETHUSDT")
    assert (market.streamed(), market.newest("BTCUSDT")) == (["ETHUSDT"], None)
    assert (await taken(market)).streamed == {"ETHUSDT"}
    assert market.now_us() == T0 + 6 * MINUTE_US
    assert market.statistics()["symbols"] == 1


async def test_symbol_is_streamed_until_the_last_of_its_streamers_drops_it() -> None:
    market = market_of()
    one, other = MessageEncoder("a", 1, ["1m"]), MessageEncoder("b", 1, ["1m"])
    beat(market, one, "BTCUSDT")
    beat(market, other, "BTCUSDT")
    deliver(market, one, 0)
    beat(market, one)
    assert market.newest("BTCUSDT") is not None
    beat(market, other)
    assert (market.newest("BTCUSDT"), market.streamed()) == (None, [])


async def test_streamer_without_a_symbol_list_streams_what_it_publishes() -> None:
    market, encoder = market_of(), MessageEncoder("a", 1, ["1m"])
    market._on_heartbeat(encoder.heartbeat())
    assert market.streamed() == []
    deliver(market, encoder, 0)
    market._on_heartbeat(encoder.heartbeat())
    assert market.streamed() == ["BTCUSDT"]
    batch = await taken(market)
    assert (batch.streamed, len(batch.updates)) == ({"BTCUSDT"}, 1)


async def test_late_state_does_not_keep_a_dropped_symbol() -> None:
    market, encoder = market_of(), MessageEncoder("a", 1, ["1m"])
    beat(market, encoder, "BTCUSDT")
    beat(market, encoder)
    deliver(market, encoder, 0)
    assert len((await taken(market)).updates) == 1
    beat(market, encoder)
    assert (market.streamed(), market.newest("BTCUSDT")) == ([], None)


async def test_dropped_symbol_goes_once_its_missed_states_arrive() -> None:
    """Its streamer was cut off from us for a while, and dropped it meanwhile."""
    market, encoder = market_of(*range(6)), MessageEncoder("a", 1, ["1m"])
    beat(market, encoder, "BTCUSDT")
    deliver(market, encoder, 0)
    assert len((await taken(market)).updates) == 1
    deliver(market, encoder, 1)
    encoder.totals["1m"] += 1  # one does not come
    deliver(market, encoder, 5)
    await taken(market)
    beat(market, encoder)
    assert market.streamed() == ["BTCUSDT"]
    reading = asyncio.create_task(market._resumption.run())
    try:
        async with asyncio.timeout(30):
            while market._resumption.waiting:
                await asyncio.sleep(0.01)
    finally:
        reading.cancel()
        await asyncio.wait([reading])
    assert len((await taken(market)).updates) == 6
    market._report_streamed()
    assert (market.streamed(), market.newest("BTCUSDT")) == ([], None)
