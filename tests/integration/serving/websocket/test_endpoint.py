"""The WebSocket as a reader uses it: a real server, a real client."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from structlog.testing import capture_logs
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from include.domain.candles import Status
from include.logs import MAX_LINES, LibraryLines
from serving.app import create_app
from serving.bars.day_prices import DayPriceCache
from serving.bars.live_bars import LiveBars
from serving.http.server import Place, serving
from serving.read_pool import ReadPool
from serving.websocket import endpoint as module
from serving.websocket.messages import MAX_BYTES, MAX_ITEMS, MAX_SYMBOLS, from_binary
from streamer.hub.subscription import Batch, CandleUpdate
from tests.integration.serving.http.api_client import NOW_US, T0, candle

NAMES = [f"S{index}USDT" for index in range(2_000)]


class Changes:
    """Changes that a test makes."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Batch] = asyncio.Queue()
        self.streamed = NAMES

    async def receive(self) -> Batch | None:
        return await self.queue.get()

    def unsubscribe(self) -> None:
        pass

    def list(self, *names: str) -> None:
        self.queue.put_nowait(Batch([], {}, frozenset(names)))

    def publish(self, *names: str, close: str = "1", index: int = 0, closed: bool = False) -> None:
        made = [
            CandleUpdate(
                replace(candle(name, index), close=Decimal(close)),
                is_closed=closed,
                status=Status.VERIFIED if closed else None,
            )
            for name in names
        ]
        self.queue.put_nowait(Batch(made, {}))


@asynccontextmanager
async def open_to(**options: Any) -> AsyncIterator[tuple[str, Changes, LiveBars]]:
    """A server; its address without the scheme."""
    changes = Changes()
    live_bars = LiveBars(lambda: changes, lambda _symbol, _newest: ((), (), ()), is_always_on=True)
    history = ReadPool("postgresql://nobody@127.0.0.1:1/none")
    app = create_app(
        live_bars,
        history,
        streamed=lambda: changes.streamed,
        now_us=lambda: NOW_US,
        newest=live_bars.newest,
        condition=lambda: {"status": "well"},
        prices=DayPriceCache(
            history, streamed=lambda: NAMES, newest=live_bars.newest, now_us=lambda: NOW_US
        ),
        requests_per_minute=1_000,
        **options,
    )
    listening = asyncio.create_task(live_bars.run())
    try:
        async with serving(app, Place("127.0.0.1", 0, has_websockets=True)) as url:
            yield url.removeprefix("http://"), changes, live_bars
    finally:
        listening.cancel()
        await asyncio.wait([listening])


async def next_message(socket: ClientConnection, kind: str) -> dict[str, Any]:
    """The next message of a kind."""
    async with asyncio.timeout(10):
        while True:
            message = json.loads(await socket.recv())
            if message["type"] == kind:
                return dict(message)


async def ask(socket: ClientConnection, kind: str, **fields: Any) -> None:
    await socket.send(json.dumps({"type": kind, **fields}))


async def test_reader_receives_only_what_it_subscribed() -> None:
    async with open_to() as (address, changes, _), connect(f"ws://{address}/api/v1/ws") as socket:
        await ask(socket, "subscribe", symbol="S1USDT", id=7)
        assert await next_message(socket, "subscribed") == {
            "type": "subscribed",
            "channel": "candles",
            "symbols": ["S1USDT"],
            "timeframe": "1m",
            "id": 7,
        }
        changes.publish("S2USDT", "S1USDT", close="12.50")
        (told,) = (await next_message(socket, "candles"))["data"]
        assert told == {
            "symbol": "S1USDT",
            "timeframe": "1m",
            "open_time": T0 // 1_000,
            "open": "1.10",
            "high": "2.10",
            "low": "1.10",
            "close": "12.50",
            "volume": "0.00000001",
            "quote_volume": "0.10",
            "trade_count": 1,
            "taker_buy_volume": "0",
            "taker_buy_quote_volume": "0",
            "is_closed": False,
            "status": None,
            "is_revision": False,
        }
        await ask(socket, "unsubscribe", symbols=["S1USDT"], id="x")
        assert (await next_message(socket, "unsubscribed"))["symbols"] == ["S1USDT"]
        await ask(socket, "subscribe", symbols=["S3USDT"], timeframe="5m")
        changes.publish("S1USDT", "S3USDT", index=1)
        told = (await next_message(socket, "candles"))["data"]
        assert {(one["symbol"], one["timeframe"]) for one in told} == {("S3USDT", "5m")}


async def test_current_state_comes_first() -> None:
    async with open_to() as (address, changes, live_bars):
        changes.publish("S1USDT", close="3")
        async with asyncio.timeout(10):
            while not live_bars.symbols:
                await asyncio.sleep(0.01)
        async with connect(f"ws://{address}/api/v1/ws") as socket:
            await ask(socket, "subscribe", symbol="S1USDT")
            (told,) = (await next_message(socket, "candles"))["data"]
            assert told["close"] == "3"


async def test_prices_are_sent_as_json_or_binary_batches() -> None:
    async with open_to() as (address, changes, _):
        names = NAMES[: MAX_ITEMS + 10]
        async with connect(f"ws://{address}/api/v1/ws") as socket:
            await ask(socket, "subscribe", channel="price", symbol="S1USDT")
            changes.publish("S1USDT", close="12.50")
            (told,) = (await next_message(socket, "price"))["data"]
            assert (told["symbol"], told["price"], told["volume"]) == (
                "S1USDT", "12.50", "0.00000001",
            )  # fmt: skip
        async with connect(f"ws://{address}/api/v1/ws") as socket:
            await ask(socket, "subscribe", channel="price", symbols=names, format="binary")
            ids = {
                number: name
                for name, number in (await next_message(socket, "symbols"))["ids"].items()
            }
            assert sorted(ids.values()) == sorted(names)
            changes.publish(*names, close="9.25", index=1)
            prices: dict[str, tuple[float, float]] = {}
            async with asyncio.timeout(10):
                while set(prices) != set(names) or set(prices.values()) != {(9.25, 1e-8)}:
                    items = from_binary(bytes(await socket.recv(decode=False)))
                    assert len(items) <= MAX_ITEMS
                    prices |= {ids[number]: (price, volume) for number, price, volume in items}
            # the table of ids grows with what is subscribed
            await ask(socket, "subscribe", channel="price", symbol=NAMES[100], format="binary")
            async with asyncio.timeout(10):
                while isinstance(message := await socket.recv(), bytes) or (
                    json.loads(message)["type"] != "symbols"
                ):
                    pass
            assert json.loads(message)["ids"] == {NAMES[100]: len(names)}


@pytest.mark.long
async def test_slow_reader_gets_the_newest_state_and_delays_no_other() -> None:
    async with open_to() as (address, changes, live_bars):
        slow = connect(f"ws://{address}/api/v1/ws", max_queue=1)
        async with slow as idle, connect(f"ws://{address}/api/v1/ws") as quick:
            for socket in (idle, quick):
                await ask(socket, "subscribe", symbols=NAMES[:500])
                await next_message(socket, "subscribed")
            for step in range(60):
                changes.publish(*NAMES[:500], close=str(step + 1))
                newest: dict[str, str] = {}
                async with asyncio.timeout(20):
                    while set(newest.values()) != {str(step + 1)} or len(newest) < 500:
                        told = (await next_message(quick, "candles"))["data"]
                        newest |= {one["symbol"]: one["close"] for one in told}
            assert all(one.waiting <= 5_000 for one in live_bars._subscriptions)
            newest = {}
            messages = 0
            async with asyncio.timeout(20):
                while set(newest.values()) != {"60"} or len(newest) < 500:
                    told = (await next_message(idle, "candles"))["data"]
                    newest |= {one["symbol"]: one["close"] for one in told}
                    messages += 1
            assert messages < 60 * 500 / 200


async def test_reader_that_reads_nothing_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SEND_TIMEOUT_S", 0.3)
    async with (
        open_to() as (address, changes, live_bars),
        connect(f"ws://{address}/api/v1/ws", max_queue=1, ping_interval=None) as socket,
    ):
        await ask(socket, "subscribe", symbols=NAMES[:1_000])
        await next_message(socket, "subscribed")
        assert live_bars.subscribers == 1
        step = 0
        async with asyncio.timeout(15):  # sooner than by the server's pings
            while live_bars.subscribers:  # until what lies between is full
                changes.publish(*NAMES[:1_000], close=str(step := step + 1))
                await asyncio.sleep(0.02)
        socket.transport.abort()


WRONG: list[tuple[str, str, str]] = [
    ("hello", "not_json", "not JSON"),
    ('{"type": "pin', "not_json", "not JSON"),
    ('{"a":' * 3_000, "not_json", "not JSON"),
    ("[1, 2]", "wrong_field", "object"),
    ("{}", "unknown_type", "subscribe, unsubscribe or ping"),
    ('{"type": "buy"}', "unknown_type", "subscribe, unsubscribe or ping"),
    ('{"type": "subscribe", "symbol": 5}', "wrong_field", "symbol"),
    ('{"type": "subscribe", "symbol": "S1USDT", "price": 1}', "wrong_field", "price"),
    ('{"type": "subscribe", "channel": "depth"}', "wrong_field", "channel"),
    ('{"type": "subscribe", "symbol": "NONE"}', "unknown_symbol", "'NONE' is not streamed"),
    (
        '{"type": "subscribe", "symbol": "' + "x" * 500 + '"}',
        "unknown_symbol",
        "is not streamed",
    ),
    (
        '{"type": "subscribe", "symbol": "S1USDT", "timeframe": "7m"}',
        "unknown_timeframe",
        "3m, 5m",
    ),
    ('{"type": "subscribe"}', "too_many_symbols", f"should be {MAX_SYMBOLS} at most"),
]


async def test_invalid_request_is_an_error_and_the_connection_continues(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_MESSAGES_PER_S", 1_000)
    async with open_to() as (address, _, _), connect(f"ws://{address}/api/v1/ws") as socket:
        for message, code, text in WRONG:
            await socket.send(message)
            error = await next_message(socket, "error")
            assert error["code"] == code, message
            assert text in error["message"], message
            assert len(error["message"]) < 400
        await ask(socket, "ping", id=1)
        assert await next_message(socket, "pong") == {"type": "pong", "id": 1}


async def test_floods_and_oversized_messages_end_only_their_connection() -> None:
    async with open_to() as (address, _, _), connect(f"ws://{address}/api/v1/ws") as other:
        async with connect(f"ws://{address}/api/v1/ws") as socket:
            with pytest.raises(ConnectionClosed):  # noqa: PT012 - whenever it comes
                for _ in range(2_000):
                    await socket.send('{"type": "ping"}')
                async with asyncio.timeout(10):
                    while True:
                        await socket.recv()
        async with connect(f"ws://{address}/api/v1/ws") as socket:
            await socket.send(" " * (MAX_BYTES + 1))
            with pytest.raises(ConnectionClosed):
                await asyncio.wait_for(socket.recv(), 10)
        await ask(other, "ping")
        await next_message(other, "pong")


async def test_cross_origin_connection_needs_an_allowed_origin() -> None:
    theirs = "https://charts.example.org"
    async with open_to() as (address, _, _):
        for foreign in (theirs, "http://["):
            with pytest.raises(InvalidStatus) as refused:
                async with connect(f"ws://{address}/api/v1/ws", origin=foreign):  # type: ignore[arg-type]
                    pass
            assert refused.value.response.status_code == 403
        own = f"http://{address}"
        async with connect(f"ws://{address}/api/v1/ws", origin=own) as socket:  # type: ignore[arg-type]
            await ask(socket, "ping")
            await next_message(socket, "pong")
    async with (
        open_to(allowed_origins=[theirs]) as (address, _, _),
        connect(f"ws://{address}/api/v1/ws", origin=theirs) as socket,  # type: ignore[arg-type]
    ):
        await ask(socket, "ping")
        await next_message(socket, "pong")


async def test_subscriptions_of_a_closed_connection_are_removed() -> None:
    async with open_to() as (address, changes, live_bars):
        async with connect(f"ws://{address}/api/v1/ws") as socket:
            await ask(socket, "subscribe", symbols=NAMES[:3])
            await next_message(socket, "subscribed")
            changes.publish(*NAMES[:3])
            await next_message(socket, "candles")
            assert live_bars.subscribers == 1
        async with asyncio.timeout(10):
            while live_bars.subscribers:
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("names", [{}, {"symbols": NAMES[:2]}])
async def test_dropped_symbols_can_be_unsubscribed(names: dict[str, Any]) -> None:
    async with (
        open_to() as (address, changes, live_bars),
        connect(f"ws://{address}/api/v1/ws") as at,
    ):
        await ask(at, "subscribe", symbols=NAMES[:2])
        await next_message(at, "subscribed")
        changes.streamed = NAMES[1:]
        await ask(at, "unsubscribe", **names)
        assert (await next_message(at, "unsubscribed"))["symbols"] == sorted(NAMES[:2])
        assert live_bars.subscribers == 0


async def test_reader_receives_dropped_and_resumed_symbols() -> None:
    async with (
        open_to() as (address, changes, live_bars),
        connect(f"ws://{address}/api/v1/ws") as socket,
    ):
        changes.list(*NAMES[:3])
        await ask(socket, "subscribe", symbols=NAMES[:2])
        await ask(socket, "subscribe", channel="price", symbol=NAMES[0])
        await next_message(socket, "subscribed")
        await next_message(socket, "subscribed")
        changes.list(*NAMES[1:2])
        assert await next_message(socket, "streamed") == {
            "type": "streamed", "taken_up": [], "dropped": NAMES[:1],
        }  # fmt: skip
        changes.list(*NAMES[1:3])  # which it did not subscribe
        changes.list(*NAMES[:2])
        assert (await next_message(socket, "streamed"))["taken_up"] == NAMES[:1]
        changes.publish(NAMES[0], close="7")
        assert (await next_message(socket, "candles"))["data"][0]["close"] == "7"
        await socket.close()
        async with asyncio.timeout(10):
            while live_bars.on_streamed_changed:
                await asyncio.sleep(0.01)


async def test_client_with_too_many_connections_is_refused_until_it_closes_one() -> None:
    refused: Counter[str] = Counter()
    limit = {"sockets_per_client": 2, "refused": refused}
    async with open_to(**limit) as (address, _, _), connect_twice(address) as first:
        with pytest.raises(InvalidStatus) as refusal:
            async with connect(f"ws://{address}/api/v1/ws"):
                pass
        assert refusal.value.response.status_code == 429
        assert b"more than 2 connections" in refusal.value.response.body
        assert refused == {"websocket": 1}
        await first.close()
        async with asyncio.timeout(10):
            while True:
                with contextlib.suppress(InvalidStatus):
                    async with connect(f"ws://{address}/api/v1/ws") as socket:
                        await ask(socket, "ping")
                        assert await next_message(socket, "pong")
                        break


@asynccontextmanager
async def connect_twice(address: str) -> AsyncIterator[ClientConnection]:
    url = f"ws://{address}/api/v1/ws"
    async with connect(url) as first, connect(url):
        yield first


async def test_bad_frames_and_requests_make_few_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """A text that is not UTF-8, a wrong opcode, no mask, a frame without end, and no HTTP."""
    frames = (
        b"\x81\x84\x00\x00\x00\x00\xff\xfe\xff\xfe",
        b"\x83\x80\x00\x00\x00\x00",
        b"\x81\x04abcd",
        b"\x81\xff\x00\x00\x00\x00\x10\x00\x00\x00\x00\x00\x00\x00",
    )
    with capture_logs() as logged:
        handler, uvicorn = LibraryLines(), logging.getLogger("uvicorn.error")
        monkeypatch.setattr(uvicorn, "disabled", False)  # by Airflow, in the same process
        uvicorn.addHandler(handler)
        try:
            async with open_to() as (address, _, _):
                for frame in frames * 10:
                    await asyncio.to_thread(send_raw, address, frame)
                for _ in range(20):
                    await asyncio.to_thread(send_raw, address, b"NO HTTP\r\n\r\n", after=b"")
        finally:
            uvicorn.removeHandler(handler)
    lines = [one for one in logged if one["event"] == "library_logged"]
    assert 1 < len(lines) <= 2 * MAX_LINES
    assert not any("exc_info" in one for one in lines)


UPGRADE = (
    b"GET /api/v1/ws HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def send_raw(address: str, data: bytes, *, after: bytes = UPGRADE) -> None:
    """Send bytes that no client library would send, and wait until the server closes."""
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as one:
        if after:
            one.sendall(after)
            assert one.recv(1_000).startswith(b"HTTP/1.1 101")
        one.sendall(data)
        while one.recv(1_000):
            pass
