"""What a streamer says on a real NATS server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from include.domain.timeframes import MINUTE_US, timeframe
from serving.bars.live_bars import LiveBars
from serving.protobuf.bars import bar_update_of
from serving.protobuf.generated.candelabra.v1 import bus_pb2 as bus
from serving.sources.nats import connection as lines
from serving.sources.nats import publisher as module
from serving.sources.nats.connection import NatsConnection
from serving.sources.nats.publisher import NatsPublisher
from streamer.hub.subscription import Batch, CandleUpdate
from tests.nats_server import NatsServer, nats_server
from tests.unit.serving.sources.nats.test_minute_states import T0, closed, live

MAX_S = 30


class Changes:
    """Changes that a test makes."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Batch] = asyncio.Queue()

    async def receive(self) -> Batch | None:
        return await self.queue.get()

    def unsubscribe(self) -> None:
        pass

    def publish(self, *updates: CandleUpdate) -> None:
        self.queue.put_nowait(Batch(list(updates), {}))


@dataclass
class Received:
    """All that was said."""

    client: Client = field(default_factory=Client)
    candles: list[tuple[str, bus.PublishedCandles]] = field(default_factory=list)
    states: list[bus.States] = field(default_factory=list)
    heartbeats: list[bus.Heartbeat] = field(default_factory=list)

    async def on_message(self, message: Msg) -> None:
        if message.subject.startswith("candles."):
            told = bus.PublishedCandles.FromString(message.data)
            self.candles.append((message.subject, told))
        elif message.subject == "candelabra.states.a":
            self.states.append(bus.States.FromString(message.data))
        elif message.subject == "candelabra.streamers.a":
            self.heartbeats.append(bus.Heartbeat.FromString(message.data))


@asynccontextmanager
async def receiving(server: NatsServer) -> AsyncIterator[Received]:
    received = Received()
    await received.client.connect(server.url)
    await received.client.subscribe(">", cb=received.on_message)
    await received.client.flush()
    try:
        yield received
    finally:
        await received.client.close()


@asynccontextmanager
async def publishing(
    server: NatsServer, **options: Any
) -> AsyncIterator[tuple[Changes, NatsPublisher]]:
    changes = Changes()
    live_bars = LiveBars(lambda: changes, lambda *_: ((), (), ()))
    one = NatsPublisher(
        NatsConnection(server.url, name="a test"), live_bars, streamer="a", **options
    )
    tasks = [asyncio.create_task(live_bars.run()), asyncio.create_task(one.run())]
    try:
        yield changes, one
        assert not any(task.done() for task in tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=10)


@asynccontextmanager
async def both(
    **options: Any,
) -> AsyncIterator[tuple[NatsServer, Received, Changes, NatsPublisher]]:
    """A publisher and a subscriber of everything."""
    async with (
        nats_server() as server,
        receiving(server) as received,
        publishing(server, **options) as (changes, publisher),
    ):
        yield server, received, changes, publisher


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "BACKOFF", lines.Backoff(first_s=0.02, max_s=0.1, min_s=0.01))
    monkeypatch.setattr(module, "STATES_INTERVAL_S", 0.05)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(MAX_S):
        while not condition():
            await asyncio.sleep(0.01)


async def test_each_change_is_published_under_its_symbol_and_timeframe() -> None:
    five = timeframe("5m")
    async with both(timeframes=[five]) as (_, received, changes, publisher):
        changes.publish(closed())
        changes.publish(live(1))
        await until(lambda: {"candles.1m.BTCUSDT", "candles.5m.BTCUSDT"} <= {
            subject for subject, _ in received.candles
        } and publisher.delivered >= 3)  # fmt: skip
        minutes = [one for subject, one in received.candles if ".1m." in subject]
        assert [one.total for one in minutes] == list(range(1, len(minutes) + 1))
        told = [bar_update_of(update) for one in minutes for update in one.updates]
        assert [(one.candle, one.is_closed) for one in told] == [
            (closed().candle, True), (live(1).candle, False),
        ]  # fmt: skip
        await until(lambda: any(dict(one.totals)["1m"] >= 1 for one in received.heartbeats))
        assert publisher.condition()["status"] == "well"
        assert publisher.statistics()["delivered"] == publisher.delivered


async def test_requested_states_are_sent_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH_UPDATES", 3)
    async with both() as (_, received, changes, publisher):
        changes.publish(*(closed(index=index) for index in range(7)))
        await until(lambda: publisher.delivered == 7)
        for subject in ("candelabra.ask", "candelabra.ask.a"):
            received.states.clear()
            await received.client.publish(subject, b"")
            await until(lambda: any(one.is_last for one in received.states))
            assert [(one.part, one.is_last) for one in received.states] == [
                (0, False), (1, False), (2, True),
            ]  # fmt: skip
            assert {one.total for one in received.states} == {received.candles[-1][1].total}
            times = [
                bar_update_of(update).candle.open_time_us
                for one in received.states
                for update in one.updates
            ]
            assert times == [T0 + index * MINUTE_US for index in range(7)]
        assert publisher.states_published == 2


async def test_many_requests_share_one_snapshot_per_interval(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "STATES_INTERVAL_S", 3_600)
    monkeypatch.setattr(module, "HEARTBEAT_S", 0.01)
    async with both() as (_, received, changes, publisher):
        changes.publish(closed())
        await until(lambda: publisher.delivered == 1)
        for _ in range(100):
            await received.client.publish("candelabra.ask", b"")
        await received.client.flush()
        await until(lambda: publisher.states_published >= 1)
        await received.client.publish("candelabra.ask", b"")
        await received.client.flush()
        heartbeats = len(received.heartbeats)
        await until(lambda: len(received.heartbeats) >= heartbeats + 5)
        assert publisher.states_published == 1


async def test_snapshot_without_candles_is_empty() -> None:
    async with nats_server() as server, receiving(server) as received, publishing(server):
        await until(lambda: bool(received.heartbeats))
        await received.client.publish("candelabra.ask", b"")
        await until(lambda: bool(received.states))
        assert (received.states[0].is_last, len(received.states[0].updates)) == (True, 0)


async def test_states_are_conflated_while_nats_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lines, "ANSWER_TIMEOUT_S", 20)
    async with both() as (server, received, changes, publisher):
        changes.publish(live(last_id=1))
        await until(lambda: publisher.delivered == 1)
        server.hold()
        for last_id in range(2, 1_000):
            changes.publish(live(last_id=last_id))
        await until(lambda: publisher.conflated > 900)
        server.let_go()
        await until(
            lambda: (
                bool(received.candles)
                and received.candles[-1][1].updates[-1].candle.last_trade_id == 999
            )
        )
        assert len(received.candles) < 50
        assert publisher.disconnects == 0


async def test_each_connection_starts_with_the_current_states() -> None:
    async with nats_server() as server, publishing(server) as (changes, publisher):
        changes.publish(closed())
        await until(lambda: publisher.delivered == 1)
        server.kill()
        await until(lambda: publisher.disconnects == 1)
        await server.start()
        async with receiving(server) as received:
            await until(lambda: publisher.is_connected)
            changes.publish(closed(index=1))
            await until(lambda: publisher.delivered >= 2)
            await until(lambda: bool(received.candles))
            assert {one.connection for _, one in received.candles} == {2}
