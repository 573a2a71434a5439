"""WebSocket streams, with a real client."""

import asyncio
import json
from decimal import Decimal
from itertools import pairwise
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from simulator.config import SimulatorConfig
from simulator.server import Exchange
from tests.integration.simulator.streams.sockets import (
    NOON,
    Frame,
    collect,
    open_raw,
    read,
    read_on,
)


def _closed(frames: list[Frame], count: int) -> bool:
    if not frames or frames[-1]["data"]["e"] != "kline" or not frames[-1]["data"]["k"]["x"]:
        return False
    return sum(f["data"]["e"] == "kline" and f["data"]["k"]["x"] for f in frames) >= count


def _aggregate(trades: list[Frame]) -> dict[str, Any]:
    """Aggregate single trades with Decimal."""
    prices = [Decimal(t["p"]) for t in trades]
    buys = [t for t in trades if not t["m"]]
    quote = {t["t"]: Decimal(t["p"]) * Decimal(t["q"]) for t in trades}
    return {
        "f": trades[0]["t"], "L": trades[-1]["t"], "n": len(trades),
        "o": prices[0], "c": prices[-1], "h": max(prices), "l": min(prices),
        "v": sum(Decimal(t["q"]) for t in trades), "q": sum(quote.values()),
        "V": sum(Decimal(t["q"]) for t in buys), "Q": sum(quote[t["t"]] for t in buys),
    }  # fmt: skip


def _values(kline: Frame) -> dict[str, Any]:
    numbers = {name: Decimal(kline[name]) for name in "ochlvqVQ"}
    return {"f": kline["f"], "L": kline["L"], "n": kline["n"], **numbers}


async def test_every_spot_kline_frame_aggregates_the_trades_up_to_its_last_id(
    fast: Exchange,
) -> None:
    url = f"{fast.spot_ws_url}/stream?streams=btcusdt@trade/btcusdt@kline_1m"
    async with connect(url) as ws:
        frames = await collect(ws, lambda seen: _closed(seen, 4))
    trades = {f["data"]["t"]: f["data"] for f in frames if f["data"]["e"] == "trade"}
    assert sorted(trades) == list(range(min(trades), max(trades) + 1))
    klines = [f["data"]["k"] for f in frames if f["data"]["e"] == "kline"]
    compared = 0
    for kline in klines:
        if kline["f"] in trades and kline["L"] in trades:
            ids = range(kline["f"], kline["L"] + 1)
            assert _values(kline) == _aggregate([trades[i] for i in ids])
            assert all(kline["t"] <= trades[i]["T"] <= kline["T"] for i in ids)
            compared += 1
    assert compared > 20
    assert sum(kline["x"] for kline in klines) >= 4


async def test_agg_trades_are_contiguous_and_klines_run_ahead_of_them(fast: Exchange) -> None:
    url = f"{fast.spot_ws_url}/stream?streams=btcusdt@aggTrade/btcusdt@kline_1m"
    async with connect(url) as ws:
        frames = await collect(ws, lambda seen: _closed(seen, 4))
    last_sent = None
    agg_ids, ahead, inside, aggregates = [], 0, 0, []
    for frame in frames:
        data = frame["data"]
        if data["e"] == "aggTrade":
            assert data["E"] >= data["T"]
            assert last_sent is None or data["f"] == last_sent + 1
            last_sent = data["l"]
            agg_ids.append(data["a"])
            aggregates.append(data)
        elif last_sent is not None:
            ahead += data["k"]["L"] > last_sent
    assert agg_ids == list(range(agg_ids[0], agg_ids[0] + len(agg_ids)))
    ends = {data["l"] for data in aggregates}
    known = range(aggregates[0]["f"], aggregates[-1]["l"])
    for frame in frames:
        if frame["data"]["e"] == "kline" and frame["data"]["k"]["L"] in known:
            inside += frame["data"]["k"]["L"] not in ends
    assert ahead > 0
    assert inside > 0


async def test_futures_klines_count_fills_that_agg_trades_omit(fast: Exchange) -> None:
    url = f"{fast.um_ws_url}/market/stream?streams=btcusdt@aggTrade/btcusdt@kline_1m"
    async with connect(url) as ws:
        frames = await collect(ws, lambda seen: _closed(seen, 3))
    aggregates = [f["data"] for f in frames if f["data"]["e"] == "aggTrade"]
    assert all(100 <= data["E"] - data["T"] <= 200 for data in aggregates)
    agg_ids = [data["a"] for data in aggregates]
    assert agg_ids == list(range(agg_ids[0], agg_ids[0] + len(agg_ids)))
    closed = [f["data"]["k"] for f in frames if f["data"]["e"] == "kline" and f["data"]["k"]["x"]]
    skips = 0
    for kline in closed[1:]:
        inside = [d for d in aggregates if kline["t"] <= d["T"] <= kline["T"]]
        sent_fills = sum(data["l"] - data["f"] + 1 for data in inside)
        assert sent_fills <= kline["n"] <= kline["L"] - kline["f"] + 1
        skips += kline["n"] < kline["L"] - kline["f"] + 1
    assert skips > 0


async def test_silent_minute_closes_flat_with_no_ids(fast: Exchange) -> None:
    async with connect(f"{fast.spot_ws_url}/ws/bifiusdt@kline_1m") as ws:
        kline = (await read(ws))["k"]
    assert (kline["n"], kline["f"], kline["L"], kline["x"]) == (0, -1, -1, True)
    assert kline["o"] == kline["h"] == kline["l"] == kline["c"]
    assert Decimal(kline["v"]) == Decimal(kline["q"]) == 0


@pytest.mark.parametrize("market", ["spot", "um"])
async def test_closed_klines_equal_rest_and_the_oracle(fast: Exchange, market: str) -> None:
    spot = market == "spot"
    base = fast.spot_ws_url if spot else f"{fast.um_ws_url}/market"
    symbols = ("BTCUSDT", "ETHBTC", "COSUSDT") if spot else ("BTCUSDT", "KEEPUSDT")
    streams = "/".join(f"{symbol.lower()}@kline_1m" for symbol in symbols)
    async with connect(f"{base}/stream?streams={streams}") as ws:
        frames = await collect(ws, lambda seen: _closed(seen, 3 * len(symbols)))
    closed = [f["data"]["k"] for f in frames if f["data"]["k"]["x"]]
    assert {kline["s"] for kline in closed} == set(symbols)
    prefix = "/api/v3" if spot else "/fapi/v1"
    async with httpx.AsyncClient(base_url=fast.spot_rest_url) as client:
        for kline in closed:
            query = {"symbol": kline["s"], "startTime": kline["t"], "endTime": kline["t"]}
            oracle = await client.get("/sim/klines", params=query | {"market": market})
            (row,) = oracle.json()
            assert row == [
                kline["t"], kline["o"], kline["h"], kline["l"], kline["c"], kline["v"],
                kline["T"], kline["q"], kline["n"], kline["V"], kline["Q"], "0",
            ]  # fmt: skip
        rest = await client.get(
            f"{prefix}/klines",
            params={"symbol": closed[0]["s"], "interval": "1m", "startTime": closed[0]["t"]},
        )
        oracle = await client.get(
            "/sim/klines",
            params={"symbol": closed[0]["s"], "startTime": closed[0]["t"], "market": market},
        )
        assert rest.json()[0] == oracle.json()[0]


async def test_longer_intervals_grow_from_their_own_beginning(fast: Exchange) -> None:
    async with connect(
        f"{fast.spot_ws_url}/stream?streams=btcusdt@kline_1h/btcusdt@kline_1s"
    ) as ws:
        frames = await collect(
            ws, lambda seen: sum(f["data"]["k"]["i"] == "1h" for f in seen) >= 30
        )
    hours = [f["data"]["k"] for f in frames if f["data"]["k"]["i"] == "1h"]
    assert {kline["t"] for kline in hours} == {int(NOON.timestamp()) // 3_600 * 3_600_000}
    assert all(a["L"] < b["L"] and a["n"] < b["n"] for a, b in pairwise(hours))
    seconds = [f["data"]["k"] for f in frames if f["data"]["k"]["i"] == "1s"]
    opened = [kline["t"] for kline in seconds if kline["x"]]
    assert opened == list(range(opened[0], opened[0] + 1_000 * len(opened), 1_000))


async def test_microseconds_are_given_on_request(fast: Exchange) -> None:
    path = "stream?streams=btcusdt@kline_1m/btcusdt@trade&timeUnit=MICROSECOND"
    async with connect(f"{fast.spot_ws_url}/{path}") as ws:
        frames = await collect(
            ws, lambda seen: {f["data"]["e"] for f in seen} == {"kline", "trade"}
        )
    for frame in frames:
        assert len(str(frame["data"]["E"])) == 16
        if frame["data"]["e"] == "kline":
            kline = frame["data"]["k"]
            assert kline["T"] - kline["t"] == 60_000_000 - 1


async def test_subscribing_later_and_switching_to_combined_frames(fast: Exchange) -> None:
    async with connect(f"{fast.spot_ws_url}/ws") as ws:
        await ws.send('{"method":"SUBSCRIBE","params":["btcusdt@trade"],"id":1}')
        assert await read(ws) == {"result": None, "id": 1}
        assert (await read(ws))["e"] == "trade"
        await ws.send('{"method":"SET_PROPERTY","params":["combined",true],"id":"two"}')
        frames = [await read(ws)]
        while frames[-1] != {"result": None, "id": "two"}:
            frames.append(await read(ws))
        assert (await read(ws))["stream"] == "btcusdt@trade"
        await ws.send('{"method":"UNSUBSCRIBE","params":["btcusdt@trade"],"id":3}')
        while "id" not in await read(ws):
            pass
        await ws.send('{"method":"LIST_SUBSCRIPTIONS","id":4}')
        assert await read(ws) == {"result": [], "id": 4}


@pytest.mark.parametrize("stream", ["nosuch@trade", "BTCUSDT@trade", "btcusdt@kline_7m"])
async def test_unknown_streams_are_acknowledged_and_silent(fast: Exchange, stream: str) -> None:
    async with connect(f"{fast.spot_ws_url}/ws") as ws:
        await ws.send(json.dumps({"method": "SUBSCRIBE", "params": [stream], "id": 1}))
        assert await read(ws) == {"result": None, "id": 1}
        with pytest.raises(TimeoutError):
            await read(ws, timeout_s=0.15)


@pytest.mark.parametrize("path", ["/ws", "/public/ws"])
async def test_futures_paths_without_route_deliver_only_public_streams(
    fast: Exchange, path: str
) -> None:
    async with connect(f"{fast.um_ws_url}{path}") as ws:
        names = ["btcusdt@aggTrade", "btcusdt@kline_1m"]
        await ws.send(json.dumps({"method": "SUBSCRIBE", "params": names, "id": 1}))
        assert await read(ws) == {"result": None, "id": 1}
        with pytest.raises(TimeoutError):
            await read(ws, timeout_s=0.15)
        await ws.send('{"method":"SUBSCRIBE","params":["btcusdt@trade"],"id":2}')
        assert await read(ws) == {"result": None, "id": 2}
        trade = await read(ws)
        assert (trade["e"], trade["X"]) == ("trade", "MARKET")


async def test_one_stream_too_many_closes_with_1008(live: Exchange) -> None:
    async with connect(f"{live.spot_ws_url}/ws") as ws:
        names = [f"s{number}@trade" for number in range(1_025)]
        await ws.send(json.dumps({"method": "SUBSCRIBE", "params": names, "id": 19}))
        error = await read(ws)
        assert error == {"error": {"code": 4, "msg": "Too many subscriptions"}, "id": 19}
        with pytest.raises(ConnectionClosed) as closed:
            await read(ws)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "Invalid request")


async def test_too_many_messages_in_a_second_close_with_1008(live: Exchange) -> None:
    async with connect(f"{live.spot_ws_url}/ws") as ws:
        for number in range(6):
            await ws.send(json.dumps({"method": "LIST_SUBSCRIPTIONS", "id": number}))
        with pytest.raises(ConnectionClosed) as closed:
            await read_on(ws)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "Too many requests")


async def test_path_without_streams_is_not_found(live: Exchange) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"{live.spot_ws_url}/nothing")
    assert refused.value.response.status_code == 404


async def test_pings_are_sent_and_their_pongs_keep_the_connection(pinging: Exchange) -> None:
    server = pinging.stream_servers["spot"]
    async with connect(f"{pinging.spot_ws_url}/ws", ping_interval=None) as ws:
        (server_side,) = server.connections
        ping_s, pong_s = server.ping_times_s()
        await asyncio.sleep(pong_s + 2 * ping_s)
        assert server_side in server.connections
        await ws.send('{"method":"LIST_SUBSCRIPTIONS","id":4}')
        assert (await read(ws))["id"] == 4


async def test_client_without_pongs_is_disconnected(pinging: Exchange) -> None:
    reader, writer = await open_raw(pinging)
    opcode, size = await asyncio.wait_for(reader.readexactly(2), 5)
    assert (opcode, size) == (0x89, 13)  # a ping with the time in ms
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.read(), 10)
    writer.close()


async def test_connections_end_after_their_life() -> None:
    config = SimulatorConfig(clock_start=NOON, speed=1_000, connection_life_s=300)
    async with Exchange(config) as exchange, connect(f"{exchange.spot_ws_url}/ws") as ws:
        with pytest.raises(ConnectionClosed) as closed:
            await read(ws)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001


async def test_two_exchanges_of_one_seed_send_the_same_frames() -> None:
    async def first_frames() -> list[Frame]:
        config = SimulatorConfig(clock_start=NOON, speed=200)
        streams = "btcusdt@aggTrade/btcusdt@kline_1m"
        async with (
            Exchange(config) as exchange,
            connect(f"{exchange.spot_ws_url}/stream?streams={streams}") as ws,
        ):
            frames = await collect(ws, lambda seen: _closed(seen, 3))
        # the first frames depend on when the client connected
        minute = NOON.timestamp() * 1_000 + 90_000
        return [f for f in frames if minute <= f["data"]["E"] < minute + 60_000]

    first = await first_frames()
    assert len(first) > 50
    assert first == await first_frames()
