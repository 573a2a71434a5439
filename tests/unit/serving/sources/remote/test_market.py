"""Another process's changes, over cuts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest

from include.domain.candles import silent_candle
from include.domain.exact import ZERO
from include.domain.timeframes import MINUTE_US
from include.errors import PermanentError
from serving.bars.subscription import BarUpdate
from serving.protobuf.bars import microseconds_of, time_of, update_of
from serving.protobuf.generated.candelabra.v1 import market_data_pb2 as pb
from serving.protobuf.generated.candelabra.v1 import market_data_pb2_grpc as services
from serving.sources.remote import market as remotes
from serving.sources.remote.market import MAX_WAITING, OVERLAP_US, RemoteChanges, RemoteMarket

T0 = 1_700_000_040_000_000
Result = TypeVar("Result")
Play = Callable[[pb.StreamCandlesRequest, Any], AsyncIterator[pb.StreamCandlesResponse]]


def message(index: int, **fields: Any) -> pb.StreamCandlesResponse:
    candle = silent_candle("BTCUSDT", T0 + index * MINUTE_US, ZERO)
    return pb.StreamCandlesResponse(updates=[update_of(BarUpdate("1m", candle))], **fields)


class Played(services.MarketDataServicer):
    """A streamer that a test plays."""

    def __init__(self, *calls: Play) -> None:
        self._calls = list(calls)
        self.requests: list[pb.StreamCandlesRequest] = []

    async def StreamCandles(
        self, request: pb.StreamCandlesRequest, context: Any
    ) -> AsyncIterator[pb.StreamCandlesResponse]:
        self.requests.append(request)
        async for one in self._calls[min(len(self.requests), len(self._calls)) - 1](
            request, context
        ):
            yield one


@asynccontextmanager
async def playing(*calls: Play) -> AsyncIterator[tuple[Played, RemoteMarket]]:
    played = Played(*calls)
    server = grpc.aio.server()
    services.add_MarketDataServicer_to_server(played, server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    remote = RemoteMarket(address)
    try:
        yield played, remote
    finally:
        await remote.close()
        await server.stop(0)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remotes, "BACKOFF", remotes.Backoff(first_s=0.01, max_s=0.02))


async def within(awaited: Awaitable[Result]) -> Result:
    async with asyncio.timeout(30):
        return await awaited


async def test_ended_call_resumes_shortly_before_the_newest_minute() -> None:
    async def short(_request: Any, _context: Any) -> AsyncIterator[pb.StreamCandlesResponse]:
        yield message(0)
        yield message(30)

    async def further(_request: Any, _context: Any) -> AsyncIterator[pb.StreamCandlesResponse]:
        yield message(31)
        await asyncio.Event().wait()

    async with playing(short, further) as (played, remote):
        changes = remote.changes()
        found = []
        for _ in range(3):
            batch = await within(changes.receive())
            assert batch is not None
            found += [one.candle.open_time_us for one in batch.updates]
        assert found == [T0, T0 + 30 * MINUTE_US, T0 + 31 * MINUTE_US]
        assert not played.requests[0].HasField("resume_from")
        assert microseconds_of(played.requests[1].resume_from) == T0 + 30 * MINUTE_US - OVERLAP_US
        assert remote.streamed() == ["BTCUSDT"]
        assert remote.now_us() == T0 + 32 * MINUTE_US
        newest = remote.newest("BTCUSDT")
        assert newest is not None
        assert newest.candle.open_time_us == T0 + 31 * MINUTE_US
        assert remote.newest("ETHUSDT") is None
        assert (remote.condition()["status"], remote.condition()["disconnects"]) == ("well", 1)
        changes.unsubscribe()


async def test_call_does_not_resume_after_a_disconnect_of_a_day(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The other side would refuse to resume that far, which would end the server."""
    monkeypatch.setattr(remotes, "MAX_RESUMED_S", 0.0)

    async def short(_request: Any, _context: Any) -> AsyncIterator[pb.StreamCandlesResponse]:
        yield message(0)

    async with playing(short) as (played, remote):
        changes = remote.changes()
        for _ in range(2):
            assert await within(changes.receive())
        assert not played.requests[1].HasField("resume_from")
        changes.unsubscribe()


async def test_refusal_is_raised_to_subscribers() -> None:
    async def refuse(_request: Any, context: Any) -> AsyncIterator[pb.StreamCandlesResponse]:
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you?")
        yield message(0)

    async with playing(refuse) as (_, remote):
        changes = remote.changes()
        with pytest.raises(PermanentError, match=r"refuses: who are you\?"):
            await within(changes.receive())


async def test_minutes_missed_by_the_remote_are_reported() -> None:
    lost = pb.Missed(
        symbol="BTCUSDT", timeframe="1m", from_time=time_of(T0), to_time=time_of(T0 + MINUTE_US)
    )

    async def once(_request: Any, _context: Any) -> AsyncIterator[pb.StreamCandlesResponse]:
        yield pb.StreamCandlesResponse(missed=[lost])
        await asyncio.Event().wait()

    async with playing(once) as (_, remote):
        changes = remote.changes()
        batch = await within(changes.receive())
        assert batch is not None
        assert batch.missed == {"BTCUSDT": (T0, T0 + MINUTE_US)}
        changes.unsubscribe()


async def test_stream_is_not_read_while_the_mailbox_is_full() -> None:
    sent = 0

    async def flood() -> AsyncIterator[pb.StreamCandlesResponse]:
        nonlocal sent
        while True:
            first_us = T0 + 1_000 * sent * MINUTE_US
            sent += 1
            yield pb.StreamCandlesResponse(
                updates=[
                    update_of(
                        BarUpdate("1m", silent_candle("BTCUSDT", first_us + i * MINUTE_US, ZERO))
                    )
                    for i in range(1_000)
                ]
            )

    changes = RemoteChanges(flood)
    for _ in range(100):
        await asyncio.sleep(0)
    assert (changes.waiting, sent) == (MAX_WAITING, MAX_WAITING // 1_000 + 1)
    before = sent
    while sent == before:  # the stream is read on once there is room
        assert await changes.receive()
    changes.unsubscribe()


async def test_missing_certificate_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match=r"none\.pem"):
        RemoteMarket("127.0.0.1:1", certificate=tmp_path / "none.pem")


def streaming(*symbols: str) -> pb.StreamedSymbols:
    return pb.StreamedSymbols(symbols=symbols)


async def test_symbols_of_the_remote_are_known_immediately_and_forgotten_when_dropped() -> None:
    go_on = asyncio.Event()

    async def play(_request: Any, _context: Any) -> AsyncIterator[pb.StreamCandlesResponse]:
        yield pb.StreamCandlesResponse(streamed=streaming("BTCUSDT", "ETHUSDT"))
        yield message(5)
        await go_on.wait()
        yield message(6, streamed=streaming("ETHUSDT"))  # the last state of the one that is dropped
        yield pb.StreamCandlesResponse(streamed=streaming())
        await asyncio.Event().wait()

    async with playing(play) as (_, remote):
        changes = remote.changes()
        batch = await within(changes.receive())
        assert batch is not None
        assert batch.streamed == {"BTCUSDT", "ETHUSDT"}
        assert remote.streamed() == ["BTCUSDT", "ETHUSDT"]
        batch = await within(changes.receive())
        assert batch is not None
        assert batch.streamed is None
        assert remote.newest("BTCUSDT") is not None
        go_on.set()
        batch = await within(changes.receive())
        assert batch is not None
        assert (batch.streamed, len(batch.updates)) == ({"ETHUSDT"}, 1)
        batch = await within(changes.receive())
        assert batch is not None
        assert batch.streamed == frozenset()
        assert (remote.newest("BTCUSDT"), remote.streamed()) == (None, [])
        assert remote.condition()["symbols"] == 0
        assert remote.now_us() == T0 + 7 * MINUTE_US  # time does not go back
        changes.unsubscribe()


async def test_snapshot_ends_where_the_remote_marks_it() -> None:
    async def play(_request: Any, _context: Any) -> AsyncIterator[pb.StreamCandlesResponse]:
        yield message(0)
        yield message(1, is_snapshot_end=True)
        yield message(2)
        await asyncio.Event().wait()

    async with playing(play) as (_, remote):
        changes = remote.changes()
        cut = []
        for _ in range(3):
            batch = await within(changes.receive())
            assert batch is not None
            cut.append(batch.is_cut)
        assert cut == [True, False, False]
        changes.unsubscribe()


async def test_missed_minutes_of_a_symbol_dropped_during_a_disconnect_are_reported() -> None:
    lost = pb.Missed(
        symbol="BTCUSDT", timeframe="1m", from_time=time_of(T0), to_time=time_of(T0 + MINUTE_US)
    )

    async def short(_request: Any, _context: Any) -> AsyncIterator[pb.StreamCandlesResponse]:
        yield message(20, streamed=streaming("BTCUSDT", "ETHUSDT"))

    async def further(_request: Any, _context: Any) -> AsyncIterator[pb.StreamCandlesResponse]:
        other = update_of(BarUpdate("1m", silent_candle("ETHUSDT", T0 + 33 * MINUTE_US, ZERO)))
        yield pb.StreamCandlesResponse(
            updates=[other], streamed=streaming("ETHUSDT"), missed=[lost]
        )
        yield message(34, streamed=streaming("BTCUSDT", "ETHUSDT"))
        yield pb.StreamCandlesResponse(streamed=streaming("ETHUSDT"))  # listed: nothing is lost
        await asyncio.Event().wait()

    async with playing(short, further) as (_, remote):
        changes = remote.changes()
        told = []
        for _ in range(4):
            batch = await within(changes.receive())
            assert batch is not None
            told.append(batch.missed)
        assert told[0] == {}
        assert told[1]["BTCUSDT"][0] == T0
        assert told[1]["BTCUSDT"][1] >= T0 + 35 * MINUTE_US  # until now, its open minute as well
        assert told[1].keys() == {"BTCUSDT"}
        assert told[2:] == [{}, {}]
        changes.unsubscribe()
