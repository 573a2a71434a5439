"""What a server makes of messages; over a real NATS server in the integration tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import cast

import pytest

from include.domain.candles import Source, Status
from include.domain.timeframes import MINUTE_US
from include.store.candles.resumed_minutes import StoredMinute
from serving.bars.subscription import Bars, BarUpdate, MissedBars
from serving.protobuf.bars import LATEST_US
from serving.protobuf.generated.candelabra.v1 import bus_pb2 as bus
from serving.protobuf.generated.candelabra.v1 import market_data_pb2 as pb
from serving.sources.nats import market as module
from serving.sources.nats.market import NatsMarket
from serving.sources.nats.publisher_state import SILENT_S
from serving.sources.nats.wire import ALL_MINUTES, ALL_STATES, MessageEncoder
from tests.unit.serving.sources.nats.played import PlayedConnection, until
from tests.unit.serving.sources.nats.test_minute_states import T0, minute
from tests.unit.serving.sources.nats.test_resumption import Table


class Playing:
    """A server, and the streamers that it receives."""

    def __init__(self, table: Table) -> None:
        self.nats = PlayedConnection()
        self.client = self.nats.client
        self.now_s = 0.0
        self.table = table
        self.market = NatsMarket(self.nats, table, clock=lambda: self.now_s)

    async def deliver(self, encoder: MessageEncoder, *updates: BarUpdate) -> None:
        for _, payload in encoder.candles(Bars(list(updates), [])):
            await self.client.deliver(ALL_MINUTES, payload)

    async def delivered(self) -> list[tuple[str, int]]:
        batch = await asyncio.wait_for(self.market.changes().receive(), 30)
        assert batch is not None
        return [(one.candle.symbol, one.candle.open_time_us) for one in batch.updates]


@asynccontextmanager
async def playing(*rows: object) -> AsyncIterator[Playing]:
    one = Playing(Table(*rows))  # type: ignore[arg-type]
    running = asyncio.create_task(one.market.run())
    try:
        await until(lambda: bool(one.client.said))  # it has asked
        yield one
        assert not running.done(), running.result()
    finally:
        running.cancel()
        await asyncio.wait([running], timeout=10)


def streamer(connection: int = 1, *, name: str = "a") -> MessageEncoder:
    return MessageEncoder(name, connection, ["1m"])


def message() -> bus.PublishedCandles:
    [(_, payload)] = streamer().candles(
        Bars([BarUpdate("1m", minute())], [MissedBars("BTCUSDT", "1m", T0, T0 + 1)])
    )
    return bus.PublishedCandles.FromString(payload)


def _no_number(one: bus.PublishedCandles) -> None:
    one.updates[0].candle.close = ""


def _not_finite(one: bus.PublishedCandles) -> None:
    one.updates[0].candle.close = "NaN"


def _huge(one: bus.PublishedCandles) -> None:
    one.updates[0].candle.volume = "1E+999999"


def _unknown_status(one: bus.PublishedCandles) -> None:
    one.updates[0].candle.status = cast(pb.Status, 99)


def _unknown_source(one: bus.PublishedCandles) -> None:
    one.updates[0].candle.source = "rumour"


def _no_symbol(one: bus.PublishedCandles) -> None:
    one.updates[0].candle.symbol = "BTC\x00USDT"


def _no_minute(one: bus.PublishedCandles) -> None:
    one.updates[0].candle.open_time.seconds += 1


def _far_future(one: bus.PublishedCandles) -> None:
    one.updates[0].candle.open_time.seconds = LATEST_US // 1_000_000


def _missed_never(one: bus.PublishedCandles) -> None:
    one.missed[0].to_time.seconds = -1


def _no_candle(one: bus.PublishedCandles) -> None:
    one.updates[0].ClearField("candle")


@pytest.mark.parametrize(
    "spoil",
    [
        _no_number,
        _not_finite,
        _huge,
        _unknown_status,
        _unknown_source,
        _no_symbol,
        _no_minute,
        _far_future,
        _missed_never,
        _no_candle,
    ],
)
async def test_invalid_message_is_counted_and_skipped(
    spoil: Callable[[bus.PublishedCandles], None], capsys: pytest.CaptureFixture[str]
) -> None:
    async with playing() as one:
        odd = message()
        spoil(odd)
        await one.client.deliver(ALL_MINUTES, odd.SerializeToString())
        assert one.market.statistics()["unreadable"] == 1
        states = bus.States(streamer="a", connection=1, updates=odd.updates, is_last=True)
        await one.client.deliver(ALL_STATES, states.SerializeToString())
        await one.deliver(streamer(), BarUpdate("1m", minute()))
        assert await one.delivered() == [("BTCUSDT", T0)]
    assert "nats_message_unreadable" in capsys.readouterr().out


async def test_undelivered_minutes_are_read_even_without_a_lost_message() -> None:
    """States after a disconnect begin later than the known ones."""
    rows = [StoredMinute(minute(one), Status.VERIFIED, Source.KLINE) for one in range(1, 5)]
    async with playing(*rows) as one:
        told = streamer()
        await one.deliver(told, BarUpdate("1m", minute()))
        assert not one.table.asked
        await one.deliver(told, BarUpdate("1m", minute(5)))
        await until(lambda: one.market.statistics()["resumed"] >= 4)
        assert set(await one.delivered()) == {
            ("BTCUSDT", T0 + index * MINUTE_US) for index in range(6)
        }


def last_minutes(symbol: str) -> list[StoredMinute]:
    """What a streamer wrote of a symbol before it dropped it."""
    candles = [replace(minute(index), symbol=symbol) for index in range(3)]
    return [StoredMinute(one, Status.VERIFIED, Source.KLINE) for one in candles]


@pytest.mark.parametrize("falls_silent", [False, True])
async def test_symbol_dropped_during_a_disconnect_is_read(
    falls_silent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.005)
    async with playing() as one:
        dropped = BarUpdate("1m", replace(minute(), symbol="LUNAUSDT"))
        await one.deliver(streamer(), BarUpdate("1m", minute()), dropped)
        if falls_silent:
            one.now_s += 2 * SILENT_S
            await until(lambda: len(one.table.asked) == 1)
            assert set(one.table.asked[0][0]) == {"BTCUSDT", "LUNAUSDT"}
            assert not one.market.is_connected
            await until(lambda: one.market.statistics()["waiting"] == 0)
        one.table.rows = last_minutes("LUNAUSDT")
        await one.deliver(streamer(2), BarUpdate("1m", minute()))
        await until(
            lambda: (
                (newest := one.market.newest("LUNAUSDT")) is not None
                and newest.candle == one.table.rows[-1].candle
            )
        )
