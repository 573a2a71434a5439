"""Faults of connections and frames on running sockets, added in every way."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus

from simulator.clock import MINUTE_US
from simulator.config import SimulatorConfig
from simulator.faults.plan import PlanError, parse_plan
from simulator.server import Exchange, ExchangeThread
from tests.integration.simulator.streams.sockets import NOON, collect

FAST = SimulatorConfig(clock_start=NOON, speed=100)


@pytest.fixture
async def exchange() -> AsyncIterator[Exchange]:
    """A minute takes 0.6 seconds."""
    async with Exchange(FAST) as exchange:
        yield exchange


async def _until_closed(ws: ClientConnection) -> ConnectionClosed:
    async with asyncio.timeout(30):
        while True:
            try:
                await ws.recv()
            except ConnectionClosed as closed:
                return closed


async def _state(exchange: Exchange, identity: str, wanted: str) -> dict[str, Any]:
    async with asyncio.timeout(30):
        while True:
            entry = next(one for one in exchange.faults.listed() if one["id"] == identity)
            if entry["state"] == wanted:
                return entry
            await asyncio.sleep(0.005)


async def test_cut_resets_connections_of_its_market_and_streams_at_its_time(
    exchange: Exchange,
) -> None:
    async with (
        connect(f"{exchange.spot_ws_url}/ws/btcusdt@trade", close_timeout=0.1) as cut,
        connect(f"{exchange.spot_ws_url}/ws/ethusdt@trade", close_timeout=0.1) as kept,
        connect(f"{exchange.um_ws_url}/market/ws/btcusdt@aggTrade", close_timeout=0.1) as other,
    ):
        began_us = exchange.clock.now_us()
        plan = {"kind": "cut", "market": "spot", "streams": "btcusdt@*", "at": "+20s"}
        (identity,) = exchange.faults.add(plan)
        assert exchange.faults.listed()[0]["state"] == "scheduled"
        assert (await _until_closed(cut)).rcvd is None
        assert exchange.clock.now_us() - began_us >= 20_000_000
        entry = await _state(exchange, identity, "finished")
        assert entry["hits"] == 1
        await collect(kept, lambda frames: len(frames) >= 5)
        await collect(other, lambda frames: len(frames) >= 5)


async def test_stalled_connection_resumes_after_its_duration(exchange: Exchange) -> None:
    async with connect(f"{exchange.spot_ws_url}/ws/btcusdt@aggTrade") as ws:
        before = await collect(ws, lambda frames: len(frames) >= 3)
        exchange.faults.add({"kind": "stall", "duration_s": 60, "id": "quiet"})
        begins = await _state(exchange, "quiet", "active")
        assert begins["hits"] == 1
        after = before[-1:]
        async with asyncio.timeout(30):
            while len(after) == 1 or after[-1]["a"] == after[-2]["a"] + 1:
                after.append(json.loads(await ws.recv()))
        lost_ms = after[-1]["T"] - after[-2]["T"]
        assert 55_000 < lost_ms < 300_000
        await _state(exchange, "quiet", "finished")
        ((from_us, to_us),) = exchange.stream_servers["spot"].withheld_us
        assert after[-2]["T"] * 1_000 <= from_us < to_us <= after[-1]["E"] * 1_000


async def test_shutdown_follows_its_announcement_after_the_grace(exchange: Exchange) -> None:
    async with connect(f"{exchange.spot_ws_url}/stream?streams=btcusdt@trade") as ws:
        exchange.faults.add({"kind": "shutdown", "grace_s": 30})
        seen = await collect(
            ws, lambda frames: bool(frames) and frames[-1]["stream"] == "!serverShutdown"
        )
        closed = await _until_closed(ws)
        assert closed.rcvd is not None
        assert closed.rcvd.code == 1001
        waited_us = exchange.clock.now_us() - seen[-1]["data"]["E"] * 1_000
        assert waited_us >= 29_000_000


async def test_connects_are_refused_until_the_fault_is_removed(
    exchange: Exchange,
) -> None:
    url = f"{exchange.spot_ws_url}/ws"
    (reset,) = exchange.faults.add({"kind": "refuse", "market": "spot"})
    with pytest.raises((InvalidMessage, OSError)):
        await connect(url)
    async with connect(f"{exchange.um_ws_url}/ws"):
        pass
    (status,) = exchange.faults.add({"kind": "refuse", "status": 503})
    with pytest.raises(InvalidStatus) as refused:
        await connect(url)
    assert refused.value.response.status_code == 503
    exchange.faults.remove(status)
    with pytest.raises((InvalidMessage, OSError)):
        await connect(url)
    exchange.faults.remove(reset)
    async with connect(url):
        pass
    listed = {entry["id"]: entry for entry in exchange.faults.listed()}
    assert listed[reset]["hits"] == 2
    assert listed[status]["hits"] == 1
    assert {entry["state"] for entry in listed.values()} == {"removed"}


async def test_late_trades_arrive_after_their_minute(exchange: Exchange) -> None:
    exchange.faults.add({"kind": "late", "within_ms": 2_000, "delay_ms": 4_000})
    async with connect(f"{exchange.spot_ws_url}/stream?streams=btcusdt@trade") as ws:
        frames = [
            entry["data"]
            for entry in await collect(
                ws,
                lambda frames: (
                    len(frames) > 1
                    and frames[-1]["data"]["T"] // 60_000 > frames[0]["data"]["T"] // 60_000 + 1
                ),
            )
        ]
    late = [
        frame
        for number, frame in enumerate(frames)
        if any(earlier["T"] // 60_000 > frame["T"] // 60_000 for earlier in frames[:number])
    ]
    assert late
    assert all(frame["T"] % 60_000 >= 57_900 for frame in late)
    ids = [frame["t"] for frame in frames]
    assert sorted(ids[: ids.index(late[-1]["t"])]) != ids[: ids.index(late[-1]["t"])]


async def test_dropped_duplicated_and_reordered_frames_show_in_the_ids(exchange: Exchange) -> None:
    exchange.faults.add(
        [
            {"kind": "drop", "streams": "btcusdt@aggTrade", "share": 0.2, "id": "d"},
            {"kind": "duplicate", "streams": "ethusdt@aggTrade", "share": 0.5, "copies": 2},
            {"kind": "reorder", "streams": "pepeusdt@aggTrade", "share": 0.3, "delay_ms": 5_000},
        ]
    )
    names = "btcusdt@aggTrade/ethusdt@aggTrade/pepeusdt@aggTrade"
    async with connect(f"{exchange.spot_ws_url}/stream?streams={names}") as ws:
        frames = await collect(
            ws,
            lambda frames: sum(one["stream"].startswith("pepe") for one in frames[-2_000:]) > 60,
        )
    ids = {
        name: [one["data"]["a"] for one in frames if one["stream"].startswith(name)]
        for name in ("btcusdt", "ethusdt", "pepeusdt")
    }
    dropped = 1 - len(ids["btcusdt"]) / (ids["btcusdt"][-1] - ids["btcusdt"][0] + 1)
    assert 0.05 < dropped < 0.4
    assert len(ids["ethusdt"]) > 1.5 * len(set(ids["ethusdt"]))
    assert ids["pepeusdt"] != sorted(ids["pepeusdt"])
    assert len(set(ids["pepeusdt"])) == len(ids["pepeusdt"])
    hits = next(entry["hits"] for entry in exchange.faults.listed() if entry["id"] == "d")
    assert hits > 0


def test_faults_added_from_another_thread_have_begun_on_return() -> None:
    before = threading.active_count()
    with ExchangeThread(FAST) as exchange:
        (identity,) = exchange.faults.add({"kind": "refuse", "status": 451})
        assert exchange.stream_servers["spot"].refusal == (identity, 451)
        assert exchange.faults.listed()[0]["state"] == "active"
        exchange.faults.remove(identity)
        assert exchange.stream_servers["spot"].refusal is None
        with pytest.raises(KeyError):
            exchange.faults.remove("nothing")
        with pytest.raises(PlanError, match="kind is"):
            exchange.faults.add({"kind": "nothing"})
    assert threading.active_count() <= before + 1


async def test_plan_has_removed_faults_with_their_actual_duration(
    exchange: Exchange,
) -> None:
    worked, never = exchange.faults.add(
        [{"kind": "drop", "share": 1}, {"kind": "cut", "at": "+1d", "market": "spot"}]
    )
    began_us = exchange.clock.now_us()
    while exchange.clock.now_us() < began_us + MINUTE_US:
        await asyncio.sleep(0.01)
    exchange.faults.remove(worked)
    exchange.faults.remove(never)
    (kept,) = parse_plan(exchange.faults.plan())
    assert (kept.id, kept.kind.name) == (worked, "drop")
    assert kept.duration_us is not None
    assert MINUTE_US <= kept.duration_us <= exchange.clock.now_us() - kept.at_us
