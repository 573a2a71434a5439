"""A local order book, maintained by Binance's procedure, equals the simulator's."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect

from simulator.config import SimulatorConfig
from simulator.server import Exchange

Frame = dict[str, Any]
NOON = datetime(2026, 2, 3, 14, 0, 30, tzinfo=UTC)
FRAMES = {"ethbtc@depth": 60, "keepusdt@depth@500ms": 20}
DEFAULT_FRAMES = 150


@pytest.fixture
async def exchange() -> AsyncIterator[Exchange]:
    """An exchange whose minutes take a second."""
    async with Exchange(SimulatorConfig(clock_start=NOON, speed=60)) as running:
        yield running


class LocalBook:
    """Levels by price, changed by diff frames. Checks ids as the exchange documents them."""

    def __init__(self, snapshot: Frame) -> None:
        self.last_id: int = snapshot["lastUpdateId"]
        self.sides = {"b": dict(snapshot["bids"]), "a": dict(snapshot["asks"])}
        self.applied = 0

    def apply(self, frame: Frame) -> None:
        is_old = frame["u"] <= self.last_id if "pu" not in frame else frame["u"] < self.last_id
        if is_old:
            return
        if self.applied == 0:
            expected = self.last_id if "pu" in frame else self.last_id + 1
            assert frame["U"] <= expected <= frame["u"]
        elif "pu" in frame:
            assert frame["pu"] == self.last_id
        else:
            assert frame["U"] == self.last_id + 1
        for side, levels in self.sides.items():
            for price, quantity in frame[side]:
                levels[price] = quantity
                if not float(quantity):
                    del levels[price]
        self.last_id = frame["u"]
        self.applied += 1


@pytest.mark.parametrize(
    ("market", "stream"),
    [
        ("spot", "btcusdt@depth@100ms"), ("spot", "ethbtc@depth"), ("um", "btcusdt@depth@0ms"),
        ("um", "keepusdt@depth@500ms"), ("um", "btcusdt@depth"),
    ],
)  # fmt: skip
async def test_snapshot_plus_diffs_equals_the_whole_book(
    exchange: Exchange, market: str, stream: str
) -> None:
    symbol = stream.partition("@")[0].upper()
    spot = market == "spot"
    base = exchange.spot_ws_url if spot else f"{exchange.um_ws_url}/public"
    path, limit = ("/api/v3/depth", 5_000) if spot else ("/fapi/v1/depth", 1_000)
    async with (
        connect(f"{base}/ws/{stream}", max_queue=None, close_timeout=0.1) as ws,
        httpx.AsyncClient(base_url=exchange.spot_rest_url) as client,
        asyncio.timeout(60),
    ):
        buffered = [json.loads(await ws.recv())]
        snapshot = (await client.get(path, params={"symbol": symbol, "limit": limit})).json()
        while snapshot["lastUpdateId"] < buffered[0]["U"]:
            snapshot = (await client.get(path, params={"symbol": symbol, "limit": limit})).json()
        book = LocalBook(snapshot)
        for frame in buffered:
            book.apply(frame)
        while book.applied < FRAMES.get(stream, DEFAULT_FRAMES):
            book.apply(json.loads(await ws.recv()))
        oracle = (
            await client.get(
                "/sim/depth",
                params={"market": market, "symbol": symbol, "updateId": book.last_id},
            )
        ).json()
    assert oracle["lastUpdateId"] == book.last_id
    for side, name in (("b", "bids"), ("a", "asks")):
        # a snapshot has limited levels; the book learns others only when they change
        known = {price for price, _ in snapshot[name]}
        wanted = {p: q for p, q in oracle[name] if p in known or p in book.sides[side]}
        assert book.sides[side] == wanted
        assert len(wanted) > 500
