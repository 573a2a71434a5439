"""Connections that are cut, stalled or shut down by the control API, with a real client."""

import asyncio

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from simulator.server import Exchange
from tests.integration.simulator.streams.sockets import open_raw, read, read_on


async def test_cut_resets_all_connections(live: Exchange) -> None:
    async with (
        connect(f"{live.spot_ws_url}/ws") as spot,
        connect(f"{live.um_ws_url}/ws") as um,
        httpx.AsyncClient(base_url=live.control_url) as client,
    ):
        assert (await client.get("/sim/connections")).json() == {"spot": 1, "um": 1, "cm": 0}
        answer = await client.post("/sim/cut", params={"market": "spot"})
        assert answer.json() == {"dropped": 1}
        with pytest.raises(ConnectionClosed) as closed:
            await read(spot)
        assert closed.value.rcvd is None  # no closing handshake
        await um.send('{"method":"LIST_SUBSCRIPTIONS","id":1}')
        assert (await read(um))["result"] == []
        assert (await client.post("/sim/cut")).json() == {"dropped": 1}


async def test_stall_silences_current_connections_but_not_new_ones(fast: Exchange) -> None:
    url = f"{fast.spot_ws_url}/ws/btcusdt@trade"
    async with (
        connect(url, close_timeout=0.1) as ws,
        httpx.AsyncClient(base_url=fast.control_url) as client,
    ):
        await read(ws)
        assert (await client.post("/sim/stall")).json() == {"stalled": 1}
        with pytest.raises(TimeoutError):
            await read_on(ws, timeout_s=0.5)  # frames on their way may still arrive
        async with connect(url) as other:
            assert (await read(other))["e"] == "trade"


async def test_stall_ends_after_its_time(fast: Exchange) -> None:
    url = f"{fast.spot_ws_url}/ws/btcusdt@trade"
    async with connect(url, close_timeout=0.1) as ws:
        async with httpx.AsyncClient(base_url=fast.control_url) as client:
            await client.post("/sim/stall", params={"seconds": 0.3})
            assert (await client.post("/sim/stall", params={"seconds": "-1"})).status_code == 400
        assert (await read(ws))["e"] == "trade"


async def test_messages_sent_in_a_stall_are_read_after_it(live: Exchange) -> None:
    message = b'{"method":"LIST_SUBSCRIPTIONS","id":8}'
    frame = b"\x81" + bytes([0x80 | len(message)]) + bytes(4) + message  # masked with zeros
    reader, writer = await open_raw(live)
    (server_side,) = live.stream_servers["spot"].connections
    server_side.stall(None)
    writer.write(frame[:20])
    async with connect(f"{live.spot_ws_url}/ws") as other:
        await other.send(
            '{"method":"LIST_SUBSCRIPTIONS","id":1}'
        )  # the server has received the first half
        assert (await read(other))["id"] == 1
    server_side.resume()
    writer.write(frame[20:])
    async with asyncio.timeout(30):
        assert b'"id":8' in await reader.readuntil(b'"id":8')
    writer.close()


async def test_stalled_connection_is_closed_after_its_client_left(live: Exchange) -> None:
    _, writer = await open_raw(live)
    (server_side,) = live.stream_servers["spot"].connections
    server_side.stall(None)
    writer.write(b"never read")
    writer.close()
    async with asyncio.timeout(30):
        while live.stream_servers["spot"].connections:
            await asyncio.sleep(0.01)


async def test_stalled_connection_gets_no_shutdown_event(fast: Exchange) -> None:
    async with connect(f"{fast.spot_ws_url}/ws", close_timeout=0.1) as ws:
        endpoint = fast.stream_servers["spot"]
        endpoint.stall(None)
        endpoint.announce_shutdown(0)
        endpoint.connections.copy().pop().resume()
        await ws.send('{"method":"LIST_SUBSCRIPTIONS","id":1}')
        assert (await read(ws))["id"] == 1


@pytest.mark.parametrize("what", ["cut", "stall", "shutdown"])
@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"market": "foo"}, "market is 'foo'; it must be 'spot', 'um', 'cm' or 'all'"),
        ({"seconds": "soon"}, "seconds is 'soon'; it must be a number from 0 to 1e+07"),
        ({"seconds": "-1"}, "seconds is '-1'; it must be a number from 0 to 1e+07"),
    ],
)
async def test_wrong_control_requests_are_refused_with_the_allowed_values(
    live: Exchange, what: str, query: dict[str, str], message: str
) -> None:
    async with (
        connect(f"{live.spot_ws_url}/ws") as ws,
        httpx.AsyncClient(base_url=live.control_url) as client,
    ):
        refused = await client.post(f"/sim/{what}", params=query)
        assert refused.status_code == 400
        assert message in refused.json()["msg"]
        await ws.send('{"method":"LIST_SUBSCRIPTIONS","id":1}')
        assert (await read(ws))["id"] == 1
        assert set((await client.post(f"/sim/{what}?market=um")).json().values()) == {0}


@pytest.mark.parametrize("path", ["/ws", "/stream"])
async def test_shutdown_is_announced_before_the_close(live: Exchange, path: str) -> None:
    async with connect(f"{live.spot_ws_url}{path}") as ws:
        async with httpx.AsyncClient(base_url=live.control_url) as client:
            await client.post("/sim/shutdown", params={"seconds": 0.1})
        event = await read(ws)
        if path == "/stream":
            assert event["stream"] == "!serverShutdown"
            event = event["data"]
        assert event["e"] == "serverShutdown"
        with pytest.raises(ConnectionClosed):
            await read(ws)
