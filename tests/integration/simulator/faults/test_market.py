"""Halts, delistings, new listings and reused tickers, as a client sees them."""

import asyncio
import io
import json
import zipfile
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect

from simulator.clock import MINUTE_US, SECOND_US, to_us
from simulator.config import SimulatorConfig
from simulator.faults.plan import PlanError
from simulator.server import Exchange

Frame = dict[str, Any]
NOON = datetime(2026, 2, 3, 14, 0, 30, tzinfo=UTC)
FAST = SimulatorConfig(
    clock_start=NOON, speed=300, spot_symbols=("BTCUSDT", "ETHUSDT"), um_symbols=("BTCUSDT",)
)


@pytest.fixture
async def exchange() -> AsyncIterator[Exchange]:
    """A minute takes 0.2 seconds."""
    async with Exchange(FAST) as exchange:
        yield exchange


async def _collect(
    ws: ClientConnection, until: Callable[[Frame], bool], frames: list[Frame] | None = None
) -> list[Frame]:
    """Return payloads of combined frames up to the first match."""
    found: list[Frame] = [] if frames is None else frames
    async with asyncio.timeout(60):
        while not found or not until(found[-1]):
            found.append(json.loads(await ws.recv())["data"])
    return found


async def _time(exchange: Exchange, time_us: int) -> None:
    async with asyncio.timeout(60):
        while exchange.clock.now_us() < time_us:
            await asyncio.sleep(0.005)


def _ids(frames: list[Frame]) -> list[int]:
    return [frame["a"] for frame in frames if frame["e"] == "aggTrade"]


def _closed(frames: list[Frame]) -> list[int]:
    """Return the open minutes of closed klines."""
    return [f["k"]["t"] // 60_000 for f in frames if f["e"] == "kline" and f["k"]["x"]]


def _at_us(exchange: Exchange, identity: str) -> int:
    """Return when a fault begins: `add` counts offsets from its own now."""
    entry = next(one for one in exchange.faults.listed() if one["id"] == identity)
    return to_us(datetime.fromisoformat(entry["at"]))


async def _get(exchange: Exchange, path: str, **params: Any) -> Any:
    async with httpx.AsyncClient(base_url=exchange.spot_rest_url) as client:
        return (await client.get(path, params=params)).json()


async def test_halt_has_no_trades_and_no_klines_and_ids_continue(exchange: Exchange) -> None:
    url = f"{exchange.spot_ws_url}/stream?streams=btcusdt@aggTrade/btcusdt@kline_1m"
    async with connect(url, close_timeout=0.1) as ws:
        frames = await _collect(ws, lambda frame: frame["e"] == "aggTrade")
        plan = {"kind": "halt", "market": "spot", "symbols": "BTCUSDT", "at": "+45s"}
        exchange.faults.add(plan | {"duration_s": 240, "id": "halt"})
        begin_us = _at_us(exchange, "halt")
        end_us = begin_us + 240 * SECOND_US
        await _time(exchange, begin_us + 60 * SECOND_US)
        info = await _get(exchange, "/api/v3/exchangeInfo", symbolStatus="HALT")
        assert [entry["symbol"] for entry in info["symbols"]] == ["BTCUSDT"]
        await _collect(
            ws, lambda frame: frame["E"] > end_us // 1_000 + 130_000 and "k" in frame, frames
        )
    ids = _ids(frames)
    assert ids == list(range(ids[0], ids[-1] + 1))
    times = [frame["T"] for frame in frames if frame["e"] == "aggTrade"]
    longest = max(later - one for one, later in pairwise(times))
    assert 240_000 <= longest < 260_000
    closed = _closed(frames)
    first_halted, resumed = begin_us // MINUTE_US + 1, end_us // MINUTE_US
    assert closed == [
        minute
        for minute in range(closed[0], closed[-1] + 1)
        if not first_halted <= minute < resumed
    ]
    assert closed[-1] > resumed
    oracle = await _get(
        exchange, "/sim/klines", symbol="BTCUSDT", startTime=closed[0] * 60_000,
        endTime=closed[-1] * 60_000,
    )  # fmt: skip
    assert [row[0] // 60_000 for row in oracle] == closed
    sent = {f["k"]["t"]: f["k"] for f in frames if f["e"] == "kline" and f["k"]["x"]}
    for row in oracle:
        candle = sent[row[0]]
        assert [candle[name] for name in "ohlcv"] == row[1:6]
        assert candle["n"] == row[8]


@pytest.mark.parametrize("interval", ["1s", "5m"])
async def test_closed_klines_of_other_intervals_equal_the_oracle_in_a_halt(
    interval: str,
) -> None:
    async with Exchange(replace(FAST, speed=1_000)) as exchange:
        url = f"{exchange.spot_ws_url}/stream?streams=btcusdt@kline_{interval}"
        async with connect(url, close_timeout=0.1) as ws:
            entry = {"kind": "halt", "market": "spot", "symbols": "BTCUSDT", "at": "+400s"}
            exchange.faults.add(entry | {"duration_s": 500})
            halt_us = _at_us(exchange, "f1")
            until_ms = halt_us // 1_000 + 1_250_000
            frames = await _collect(ws, lambda frame: frame["k"]["t"] > until_ms)
        sent = [frame["k"] for frame in frames if frame["k"]["x"]]
        oracle = await _get(
            exchange, "/sim/klines", symbol="BTCUSDT", interval=interval, startTime=sent[0]["t"],
            endTime=sent[-1]["t"],
        )  # fmt: skip
        true = {row[0]: (row[1:6], row[8]) for row in oracle}
        assert {
            k["t"]: ([k[name] for name in "ohlcv"], k["n"]) for k in sent
        }.items() <= true.items()
        paused = (halt_us // 1_000 + 1_000, halt_us // 1_000 + 499_000)
        spans = [(k["t"], k["T"]) for k in sent]
        assert not [one for one in spans if one[0] >= paused[0] and one[1] <= paused[1]]
        missing = [row for row in oracle if row[0] not in {k["t"] for k in sent}]
        assert [row[0] for row in missing if not paused[0] <= row[6] <= paused[1]] == []


async def test_streams_have_no_gap_while_the_future_changes(exchange: Exchange) -> None:
    names = "btcusdt@aggTrade/ethusdt@aggTrade/btcusdt@kline_1m/ethusdt@trade"
    url = f"{exchange.spot_ws_url}/stream?streams={names}"
    async with connect(url, close_timeout=0.1) as ws:
        frames: list[Frame] = []
        for number in range(8):
            await _collect(ws, lambda frame: frame["e"] == "kline", frames)
            frames.append({"e": "mark"})
            plan = {"kind": "new_listing", "market": "spot", "symbols": f"NEW{number}USDT"}
            exchange.faults.add(plan | {"at": f"+{number * 7}s"})
            exchange.faults.add(
                {"kind": "halt", "market": "spot", "symbols": "ETHUSDT", "at": f"+{20 + number}m",
                 "duration_s": 20, "id": f"h{number}"}
            )  # fmt: skip
            for _ in range(40):
                frames.append(json.loads(await ws.recv())["data"])
            exchange.faults.remove(f"h{number}")
    for symbol in ("BTCUSDT", "ETHUSDT"):
        ids = _ids([frame for frame in frames if frame.get("s") == symbol])
        assert ids == list(range(ids[0], ids[0] + len(ids)))
    trades = [frame["t"] for frame in frames if frame["e"] == "trade"]
    assert trades == list(range(trades[0], trades[0] + len(trades)))


async def test_futures_delisting_ends_trades_but_not_flat_klines(
    exchange: Exchange,
) -> None:
    url = f"{exchange.um_ws_url}/market/stream?streams=btcusdt@aggTrade/btcusdt@kline_1m"
    async with connect(url, close_timeout=0.1) as ws:
        plan = {"kind": "delisting", "market": "um", "symbols": "BTCUSDT", "at": "+40s"}
        exchange.faults.add(plan)
        at_us = _at_us(exchange, "f1")
        until_ms = at_us // 1_000 + 200_000
        frames = await _collect(ws, lambda frame: frame["E"] > until_ms)
    assert max(f["T"] for f in frames if f["e"] == "aggTrade") <= at_us // 1_000 + 100
    flat = [f["k"] for f in frames if f["e"] == "kline" and f["k"]["t"] > at_us // 1_000]
    assert len(flat) >= 2
    assert {(candle["n"], candle["v"], candle["x"]) for candle in flat} == {(0, "0.000", True)}
    info = await _get(exchange, "/fapi/v1/exchangeInfo")
    assert info["symbols"][0]["status"] == "SETTLING"


async def test_spot_delisting_sets_status_break_and_keeps_the_past(exchange: Exchange) -> None:
    exchange.faults.add({"kind": "delisting", "market": "spot", "symbols": "ETH*", "at": "+5s"})
    at_us = _at_us(exchange, "f1")
    await _time(exchange, at_us + 2 * MINUTE_US)
    async with httpx.AsyncClient(base_url=exchange.control_url) as client:
        kept = await client.delete("/sim/faults/f1")
    assert kept.status_code == 409
    assert "delisting 'f1' has happened" in kept.json()["msg"]
    info = await _get(exchange, "/api/v3/exchangeInfo", symbol="ETHUSDT")
    assert info["symbols"][0]["status"] == "BREAK"
    rows = await _get(exchange, "/api/v3/klines", symbol="ETHUSDT", interval="1m", limit=5)
    assert len(rows) == 5
    assert rows[-1][0] <= at_us // 1_000 + 10


async def test_new_listing_reaches_earlier_subscribers(
    exchange: Exchange,
) -> None:
    url = f"{exchange.spot_ws_url}/stream?streams=newusdt@aggTrade/newusdt@kline_1m"
    async with connect(url, close_timeout=0.1) as ws:
        plan = {"kind": "new_listing", "market": "spot", "symbols": "NEWUSDT", "at": "+100s"}
        exchange.faults.add(plan)
        start_us = -(-_at_us(exchange, "f1") // MINUTE_US) * MINUTE_US
        before = await _get(exchange, "/api/v3/klines", symbol="NEWUSDT", interval="1m")
        assert before["code"] == -1121
        frames = await _collect(ws, lambda frame: frame["e"] == "kline" and frame["k"]["x"])
    assert frames[-1]["k"]["t"] * 1_000 == start_us
    rows = await _get(exchange, "/api/v3/klines", symbol="NEWUSDT", interval="1m", limit=1_000)
    assert rows[0][0] * 1_000 == start_us
    assert rows[0][8] == frames[-1]["k"]["n"]
    info = await _get(exchange, "/api/v3/exchangeInfo", symbol="NEWUSDT")
    assert info["symbols"][0]["status"] == "TRADING"


async def test_reused_ticker_starts_with_new_ids_and_prices(exchange: Exchange) -> None:
    url = f"{exchange.spot_ws_url}/stream?streams=btcusdt@aggTrade"
    async with connect(url, close_timeout=0.1) as ws:
        plan = {"kind": "ticker_reuse", "market": "spot", "symbols": "BTCUSDT", "at": "+20s"}
        exchange.faults.add(plan | {"pause_s": 60})
        frames = await _collect(ws, lambda frame: frame["a"] < 2_000)
    old, new = frames[-2], frames[-1]
    assert new["a"] < old["a"]
    assert new["T"] - old["T"] >= 60_000
    assert float(new["p"]) < 0.7 * float(old["p"])
    await _time(exchange, exchange.clock.now_us() + 30 * SECOND_US)
    rows = await _get(exchange, "/api/v3/aggTrades", symbol="BTCUSDT", fromId=new["a"], limit=5)
    assert [row["a"] for row in rows] == list(range(new["a"], new["a"] + 5))
    trades = await _get(
        exchange, "/api/v3/historicalTrades", symbol="BTCUSDT", fromId=new["f"], limit=3
    )
    assert [row["id"] for row in trades] == list(range(new["f"], new["f"] + 3))
    assert trades[0]["price"] == new["p"]


async def test_halt_can_be_cancelled_or_ended_early(exchange: Exchange) -> None:
    entry = {"kind": "halt", "market": "spot", "symbols": "BTCUSDT"}
    url = f"{exchange.spot_ws_url}/stream?streams=btcusdt@aggTrade"
    async with connect(url, close_timeout=0.1) as ws:
        (later,) = exchange.faults.add(entry | {"at": "+10m"})
        exchange.faults.remove(later)
        (now,) = exchange.faults.add(entry)
        await _time(exchange, exchange.clock.now_us() + 200 * SECOND_US)
        resumed_ms = exchange.clock.now_us() // 1_000
        exchange.faults.remove(now)
        frames = await _collect(ws, lambda frame: frame["T"] > resumed_ms + 20_000)
    ids = _ids(frames)
    assert ids == list(range(ids[0], ids[-1] + 1))
    assert min(f["T"] for f in frames if f["T"] > resumed_ms - 190_000) >= resumed_ms
    assert exchange.markets["spot"].history("BTCUSDT").calendar.state(
        exchange.clock.now_us() + 60 * MINUTE_US
    ) == "trading"  # fmt: skip


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"kind": "halt", "symbols": "BTC*", "at": "2026-02-03T13:00:00Z"}, "s past; it must be"),
        ({"kind": "halt", "symbols": "DOGE*"}, "no listed symbol of spot matches DOGE*"),
        ({"kind": "new_listing", "symbols": "BTCUSDT"}, "BTCUSDT exists on spot;"),
        ({"kind": "new_listing", "symbols": "NEW"}, "does not end with a quote asset"),
    ],
)
async def test_impossible_market_faults_are_refused_without_effect(
    exchange: Exchange, entry: dict[str, Any], message: str
) -> None:
    good = {"kind": "halt", "market": "spot", "symbols": "ETHUSDT", "at": "+60s"}
    with pytest.raises(PlanError) as caught:
        exchange.faults.add([good, entry | {"market": "spot"}])
    assert message in str(caught.value)
    assert exchange.faults.listed() == []
    late_us = to_us(NOON) + 10 * MINUTE_US
    assert exchange.markets["spot"].history("ETHUSDT").is_trading(late_us)


async def test_dumps_omit_halts_and_days_before_a_listing() -> None:
    evening = datetime(2026, 2, 3, 23, 55, 0, tzinfo=UTC)
    config = SimulatorConfig(
        clock_start=evening, start=datetime(2026, 2, 2, tzinfo=UTC), speed=500,
        spot_symbols=("ETHBTC",), um_symbols=("BTCUSDT",),
    )  # fmt: skip
    async with Exchange(config) as exchange:
        entry = {"market": "spot", "at": "+10s"}
        exchange.faults.add(entry | {"kind": "halt", "symbols": "ETHBTC", "duration_s": 150})
        exchange.faults.add(entry | {"kind": "new_listing", "symbols": "NEWUSDT", "at": "+10m"})
        begin_us = _at_us(exchange, "f1")
        first, last = begin_us // MINUTE_US + 1, (begin_us + 150 * SECOND_US) // MINUTE_US
        paused = {minute % 1_440 for minute in range(first, last)}
        listing = "/?delimiter=/&prefix=data/spot/daily/klines/"
        async with httpx.AsyncClient(base_url=exchange.dump_url) as client:
            assert "NEWUSDT" not in (await client.get(listing)).text
            await _time(exchange, to_us(evening) + 17 * MINUTE_US)
            assert "NEWUSDT" in (await client.get(listing)).text
            new = "/data/spot/daily/klines/NEWUSDT/1m/NEWUSDT-1m-2026-02-03.zip"
            assert (await client.get(new)).status_code == 404
            for kind, name in (("klines", "1m/ETHBTC-1m"), ("aggTrades", "ETHBTC-aggTrades")):
                path = f"/data/spot/daily/{kind}/ETHBTC/{name}-2026-02-03.zip"
                content = (await client.get(path)).content
                with zipfile.ZipFile(io.BytesIO(content)) as archive:
                    rows = archive.read(archive.namelist()[0]).decode().splitlines()
                if kind == "klines":
                    opens = [int(row.split(",")[0]) // 60_000_000 % 1_440 for row in rows]
                    assert opens == [minute for minute in range(1_440) if minute not in paused]
                else:
                    minutes = {int(row.split(",")[5]) // 60_000_000 % 1_440 for row in rows}
                    assert not minutes & paused
