"""The exchange's limits on clients, on sockets: connects, pongs, fragmented messages."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from simulator.config import SimulatorConfig
from simulator.market.instruments import MarketName
from simulator.server import Exchange
from tests.integration.simulator.streams.sockets import NOON, open_raw, read


async def _answer_wrongly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer each ping without its payload until the connection ends."""
    while await reader.read(1_000):
        writer.write(b"\x8a\x80\x00\x00\x00\x00")
        await writer.drain()


async def test_one_connect_too_many_in_five_minutes_is_answered_with_429() -> None:
    async with Exchange(SimulatorConfig(connects_in_5_minutes=3)) as exchange:
        for _ in range(3):
            async with connect(f"{exchange.spot_ws_url}/ws"):
                pass
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"{exchange.spot_ws_url}/ws")
        assert refused.value.response.status_code == 429
        assert 200 < int(refused.value.response.headers["Retry-After"]) <= 300
        async with connect(f"{exchange.um_ws_url}/market/ws"):
            pass  # USD-M counts separately


async def test_connects_are_allowed_again_after_the_window() -> None:
    config = SimulatorConfig(clock_start=NOON, speed=600, connects_in_5_minutes=1)
    async with Exchange(config) as exchange:
        async with connect(f"{exchange.spot_ws_url}/ws"):
            pass
        refused = 0
        async with asyncio.timeout(30):
            while True:
                try:
                    async with connect(f"{exchange.spot_ws_url}/ws"):
                        break
                except InvalidStatus:
                    refused += 1
                    await asyncio.sleep(0.05)
        assert refused > 0


async def test_unsolicited_pongs_do_not_keep_a_connection(pinging: Exchange) -> None:
    reader, writer = await open_raw(pinging)
    async with asyncio.timeout(30):
        with pytest.raises(ConnectionResetError):
            await _answer_wrongly(reader, writer)
    writer.close()


async def test_message_may_come_in_fragments(fast: Exchange) -> None:
    async with connect(f"{fast.spot_ws_url}/ws") as ws:

        async def pieces() -> AsyncIterator[str]:
            for piece in ('{"method":"LIST_', 'SUBSCRIPTIONS",', '"id":7}'):
                yield piece

        await ws.send(pieces())
        assert await read(ws) == {"result": [], "id": 7}


def _with_long_seconds(market: MarketName) -> Exchange:
    """Return an exchange whose message window outlasts the delays of a busy machine."""
    exchange = Exchange()
    exchange.stream_servers[market].message_window_s = 60
    return exchange


async def test_pings_of_the_client_are_answered_and_counted() -> None:
    slow_to_forget = _with_long_seconds("spot")
    async with slow_to_forget as exchange, connect(f"{exchange.spot_ws_url}/ws") as ws:
        pong = await ws.ping(b"mine")
        async with asyncio.timeout(30):
            await pong
        for _ in range(5):
            await ws.ping()
        with pytest.raises(ConnectionClosed) as closed:
            await read(ws)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "Too many requests")


async def test_pongs_to_a_fast_clock_do_not_count_as_messages(pinging: Exchange) -> None:
    """Five messages a second stay allowed in spite of six pings a second."""
    async with connect(f"{pinging.spot_ws_url}/ws") as ws:
        for number in range(8):
            await ws.send(json.dumps({"method": "LIST_SUBSCRIPTIONS", "id": number}))
            assert await read(ws) == {"result": [], "id": number}
            await asyncio.sleep(0.22)


async def test_futures_take_ten_messages_a_second_and_not_eleven() -> None:
    slow_to_forget = _with_long_seconds("um")
    async with slow_to_forget as exchange, connect(f"{exchange.um_ws_url}/market/ws") as ws:
        for number in range(10):
            await ws.send(
                json.dumps({"method": "GET_PROPERTY", "params": ["combined"], "id": number})
            )
        answers = [await read(ws) for _ in range(10)]
        assert answers == [{"result": False, "id": number} for number in range(10)]
        await ws.send('{"method":"LIST_SUBSCRIPTIONS","id":11}')
        with pytest.raises(ConnectionClosed) as closed:
            await read(ws)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008


async def test_more_streams_in_the_url_than_allowed_close_with_1008() -> None:
    names = "/".join(f"s{number}@trade" for number in range(6))
    config = SimulatorConfig(max_streams=5)
    async with Exchange(config) as exchange:
        async with connect(f"{exchange.spot_ws_url}/stream?streams={names}") as ws:
            with pytest.raises(ConnectionClosed) as closed:
                await read(ws)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1008


async def test_combined_connection_may_go_raw_while_it_runs(fast: Exchange) -> None:
    url = f"{fast.spot_ws_url}/stream?streams=btcusdt@depth@100ms"
    async with connect(
        url, close_timeout=0.1
    ) as ws:  # unread frames would hide the answer to a close
        assert (await read(ws))["stream"] == "btcusdt@depth@100ms"
        await ws.send('{"method":"SET_PROPERTY","params":["combined",false],"id":1}')
        async with asyncio.timeout(30):
            while "id" not in (frame := json.loads(await ws.recv())):
                assert set(frame) == {"stream", "data"}
        assert (await read(ws))["e"] == "depthUpdate"


@pytest.mark.parametrize(
    ("path", "stream"),
    [
        ("/ws", "btcusdt@markPrice@1s"), ("/public/ws", "!forceOrder@arr"),
        ("/market/ws", "btcusdt@bookTicker"), ("/market/ws", "btcusdt@depth@0ms"),
        ("/private/ws", "btcusdt@aggTrade"), ("/private/ws", "btcusdt@bookTicker"),
    ],
)  # fmt: skip
async def test_futures_stream_on_the_wrong_route_is_acknowledged_and_silent(
    fast: Exchange, path: str, stream: str
) -> None:
    async with connect(f"{fast.um_ws_url}{path}") as ws:
        await ws.send(json.dumps({"method": "SUBSCRIBE", "params": [stream], "id": 1}))
        assert await read(ws) == {"result": None, "id": 1}
        await ws.send('{"method":"LIST_SUBSCRIPTIONS","id":2}')
        assert await read(ws) == {"result": [stream], "id": 2}
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.15):
                await ws.recv()
