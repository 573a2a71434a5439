"""Recordings, synthetic or of the real exchange, served by the simulator."""

import asyncio
import csv
import gzip
import json
import time
from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect

from simulator.config import SimulatorConfig
from simulator.server import Exchange

FIRST_MS = 1_700_000_040_000 + 50_000  # ten seconds before a minute starts
Frame = dict[str, Any]


def _trade(number: int, time_ms: int, price: str = "100.50", quantity: str = "0.25") -> Frame:
    data = {
        "e": "trade", "E": time_ms + 1, "s": "ABCUSDT", "t": 500 + number, "p": price,
        "q": quantity, "T": time_ms, "m": number % 2 == 0, "M": True,
    }  # fmt: skip
    return {"stream": "abcusdt@trade", "data": data}


def _book(number: int) -> Frame:
    return {
        "stream": "abcusdt@bookTicker",
        "data": {"u": number, "s": "ABCUSDT", "b": "1", "B": "2"},
    }


def _frames() -> list[tuple[int, Frame]]:
    """131 trades, one per second, and a bookTicker every ten: (receipt in ns, frame)."""
    frames = []
    for number in range(131):
        time_ms = FIRST_MS + number * 1_000
        price = f"{100 + number % 7}.50"
        frames.append((time_ms * 10**6, _trade(number, time_ms, price, f"0.{number + 10:04d}")))
        if number % 10 == 0:
            frames.append((time_ms * 10**6 + 5, _book(number)))
    return frames


def _write(path: Path, frames: list[tuple[int, Frame]], *, seconds: bool = False) -> Path:
    lines = []
    for at_ns, frame in frames:
        text = json.dumps(frame, separators=(",", ":"))
        at = f"{at_ns // 10**9}.{at_ns % 10**9:09d}:" if seconds else str(at_ns)
        lines.append(f"{at} {text}")
    if seconds:
        lines.insert(0, "wss://stream.example/stream?streams=abcusdt@trade <-> 1700000090.1")
        lines.insert(2, 'https://example/depth -> 1700000090.2: {"lastUpdateId":1,"bids":[]}')
    else:
        lines.insert(1, f'{FIRST_MS}000000 {{"lastUpdateId":7,"bids":[]}}')
    content = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


async def _receive(url: str, count: int) -> list[Frame]:
    async with connect(url, close_timeout=0.1) as ws, asyncio.timeout(20):
        return [json.loads(await ws.recv()) for _ in range(count)]


@pytest.mark.parametrize("name", ["frames.gz", "frames.txt"])
@pytest.mark.parametrize("seconds", [False, True])
async def test_every_subscribed_frame_is_sent_once_in_order(
    tmp_path: Path, name: str, seconds: bool
) -> None:
    frames = _frames()
    path = _write(tmp_path / name, frames, seconds=seconds)
    config = SimulatorConfig(replay_files=(path,), replay_speed=None, replay_settle_s=0)
    trades = [frame for _, frame in frames if frame["stream"].endswith("trade")]
    async with Exchange(config) as exchange:
        url = f"{exchange.spot_ws_url}/stream?streams=abcusdt@trade"
        assert await _receive(url, len(trades)) == trades
        async with httpx.AsyncClient(base_url=exchange.control_url) as client:
            state = (await client.get("/sim/replay")).json()
    assert state == {"frames": len(frames), "played": len(frames), "sent": 131, "finished": True}


async def test_raw_connections_get_bare_payloads(tmp_path: Path) -> None:
    path = _write(tmp_path / "frames.txt", _frames())
    config = SimulatorConfig(replay_files=(path,), replay_speed=None)
    async with Exchange(config) as exchange:
        (first,) = await _receive(f"{exchange.spot_ws_url}/ws/abcusdt@trade", 1)
    assert first == _frames()[0][1]["data"]


async def test_several_files_are_one_recording(tmp_path: Path) -> None:
    frames = _frames()
    later = _write(tmp_path / "b.gz", frames[70:])
    earlier = _write(tmp_path / "a.txt", frames[:70])
    config = SimulatorConfig(replay_files=(later, earlier), replay_speed=None)
    async with Exchange(config) as exchange:
        url = f"{exchange.spot_ws_url}/stream?streams=abcusdt@trade/abcusdt@bookTicker"
        assert await _receive(url, len(frames)) == [frame for _, frame in frames]


async def test_replay_keeps_the_recorded_pace_times_the_factor(tmp_path: Path) -> None:
    path = _write(tmp_path / "frames.txt", _frames()[:45])  # 40 seconds
    config = SimulatorConfig(replay_files=(path,), replay_speed=40, replay_settle_s=0)
    async with Exchange(config) as exchange:
        began = time.monotonic()
        await _receive(f"{exchange.spot_ws_url}/ws/abcusdt@trade", 41)
        assert 0.95 < time.monotonic() - began < 20


async def test_nothing_is_played_before_the_first_subscription(tmp_path: Path) -> None:
    path = _write(tmp_path / "frames.txt", _frames())
    config = SimulatorConfig(replay_files=(path,), replay_speed=None, replay_settle_s=0.3)
    async with Exchange(config) as exchange:
        replay = exchange.replay
        assert replay is not None
        async with connect(f"{exchange.spot_ws_url}/ws") as ws:
            await ws.send('{"method":"LIST_SUBSCRIPTIONS","id":1}')
            await ws.recv()
            assert replay.frames_played == 0
            for number, stream in enumerate(("abcusdt@trade", "abcusdt@bookTicker")):
                message = {"method": "SUBSCRIBE", "params": [stream], "id": number}
                await ws.send(json.dumps(message))
            async with asyncio.timeout(30):
                received = [json.loads(await ws.recv()) for _ in range(2 + len(_frames()))]
        # both subscriptions preceded the first frame
        assert sum("u" in frame for frame in received) == 14


async def test_rest_answers_from_played_frames(tmp_path: Path) -> None:
    frames = _frames()
    path = _write(tmp_path / "frames.txt", frames)
    config = SimulatorConfig(replay_files=(path,), replay_speed=None)
    symbol = {"symbol": "ABCUSDT"}
    async with (
        Exchange(config) as exchange,
        httpx.AsyncClient(base_url=f"{exchange.spot_rest_url}/api/v3") as client,
    ):

        async def ask(path: str, **query: Any) -> Any:
            return (await client.get(path, params=symbol | query)).json()

        assert len(await ask("/aggTrades")) <= 1
        last = (await _receive(f"{exchange.spot_ws_url}/ws/abcusdt@trade", 131))[-1]
        served = (await client.get("/time")).json()["serverTime"]
        assert served == last["E"]
        trades = await ask("/historicalTrades", fromId=510)
        assert [trade["id"] for trade in trades] == list(range(510, 631))
        assert trades[0]["price"] == "103.50000000"
        paged = await ask("/aggTrades", fromId=600)
        assert [row["f"] for row in paged] == list(range(600, 631))
        klines = await ask("/klines", interval="1m")
        (entry,) = (await ask("/exchangeInfo"))["symbols"]
    assert entry["symbol"] == "ABCUSDT"
    # two complete minutes, plus ten seconds before and one after
    assert [row[0] for row in klines] == [FIRST_MS + 10_000, FIRST_MS + 70_000]
    inside = [f["data"] for _, f in frames if f["stream"].endswith("trade")][10:70]
    assert klines[0][8] == 60
    assert Decimal(klines[0][5]) == sum(Decimal(trade["q"]) for trade in inside)
    assert Decimal(klines[0][7]) == sum(Decimal(t["q"]) * Decimal(t["p"]) for t in inside)
    assert Decimal(klines[0][1]) == Decimal(inside[0]["p"])


async def test_requests_beyond_a_recording_are_refused(tmp_path: Path) -> None:
    path = _write(tmp_path / "frames.txt", _frames())
    async with (
        Exchange(SimulatorConfig(replay_files=(path,))) as exchange,
        httpx.AsyncClient(base_url=exchange.spot_rest_url) as client,
    ):
        answer = await client.get("/api/v3/ticker/24hr", params={"symbol": "ABCUSDT"})
        assert (answer.status_code, answer.json()["code"]) == (400, -1000)
        seconds = {"symbol": "ABCUSDT", "interval": "1s"}
        assert (await client.get("/api/v3/klines", params=seconds)).status_code == 400
        assert (await client.get("/fapi/v1/exchangeInfo")).json()["symbols"] == []


def test_file_without_frames_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty.txt"
    path.write_text("nothing here\n")
    with pytest.raises(ValueError, match="is it a recording"):
        Exchange(SimulatorConfig(replay_files=(path,)))


def test_broken_line_is_named(tmp_path: Path) -> None:
    path = _write(tmp_path / "frames.txt", _frames())
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"frames\.txt, line 146"):
        Exchange(SimulatorConfig(replay_files=(path,)))


# --- the real exchange


async def _all_frames(
    exchange: Exchange, url: str, queries: list[tuple[str, dict[str, Any]]]
) -> tuple[list[Frame], list[Any]]:
    """Return all frames of a connection up to the end of the replay, then REST answers."""
    frames: list[Frame] = []
    replay = exchange.replay
    assert replay is not None
    async with connect(url, max_queue=None) as ws:
        async with asyncio.timeout(60):
            while not (replay.is_finished and len(frames) == replay.frames_sent):
                frames.append(json.loads(await ws.recv()))
        async with httpx.AsyncClient(base_url=exchange.spot_rest_url) as client:
            answers = [(await client.get(path, params=query)).json() for path, query in queries]
    return frames, answers


@pytest.mark.recorded
@pytest.mark.parametrize(
    ("name", "minutes"), [("ws-usdm-vs-klines-20240808", 5), ("ws-usdm-markprice-20230404", 7)]
)
async def test_futures_klines_of_a_recording_equal_the_exchanges(
    recorded_data: Path, name: str, minutes: int
) -> None:
    folder = recorded_data / name
    files = tuple(sorted(folder.glob("*.gz")))
    config = SimulatorConfig(replay_files=files, replay_market="um", replay_speed=None)
    async with Exchange(config) as exchange:
        url = f"{exchange.um_ws_url}/public/stream?streams=btcusdt@trade"
        query = {"symbol": "BTCUSDT", "interval": "1m"}
        frames, (klines,) = await _all_frames(exchange, url, [("/fapi/v1/klines", query)])
    with next(folder.glob("*.csv")).open() as lines:
        official = {row[0]: row for row in csv.reader(lines)}
    assert len(klines) == minutes
    for row in klines:
        assert [str(value) for value in row] == official[str(row[0])]
    assert len(frames) > 10_000
    assert {frame["stream"] for frame in frames} == {"btcusdt@trade"}


@pytest.mark.recorded
async def test_spot_klines_of_a_recording_over_two_files_equal_the_exchanges(
    recorded_data: Path,
) -> None:
    folder = recorded_data / "ws-spot-20240808"
    config = SimulatorConfig(replay_files=tuple(sorted(folder.glob("*.gz"))), replay_speed=None)
    async with Exchange(config) as exchange:
        url = f"{exchange.spot_ws_url}/stream?streams=btcusdt@trade"
        query = {"symbol": "BTCUSDT", "interval": "5m"}
        frames, (klines,) = await _all_frames(exchange, url, [("/api/v3/klines", query)])
    with next(folder.glob("*.csv")).open() as lines:
        official = [[Decimal(v) for v in row[1:]] for row in list(csv.reader(lines))[2:4]]
    assert [[Decimal(value) for value in row[1:6]] for row in klines] == official
    ids = [frame["data"]["t"] for frame in frames]
    assert ids == list(range(ids[0], ids[0] + len(ids)))


@pytest.mark.recorded
async def test_captures_of_2021_have_klines_that_match_their_agg_trades(
    recorded_data: Path,
) -> None:
    path = recorded_data / "ws-cryptofeed-2021" / "BINANCE-ee25be.0.8980a803.gz"
    config = SimulatorConfig(replay_files=(path,), replay_speed=None)
    async with Exchange(config) as exchange:
        streams = "/".join(
            f"{symbol}@{kind}"
            for symbol in ("btcusdt", "ethusdt", "dotusdt")
            for kind in ("aggTrade", "kline_1m")
        )
        frames, _ = await _all_frames(
            exchange, f"{exchange.spot_ws_url}/stream?streams={streams}", []
        )
    aggregates: dict[str, list[Frame]] = defaultdict(list)
    for frame in frames:
        if frame["data"]["e"] == "aggTrade":
            aggregates[frame["data"]["s"]].append(frame["data"])
    compared = 0
    for frame in frames:
        if frame["data"]["e"] != "kline":
            continue
        kline = frame["data"]["k"]
        inside = [a for a in aggregates[kline["s"]] if kline["f"] <= a["f"] <= kline["L"]]
        if inside and inside[0]["f"] == kline["f"] and inside[-1]["l"] == kline["L"]:
            assert sum(Decimal(a["q"]) for a in inside) == Decimal(kline["v"])
            compared += 1
    assert compared > 50


@pytest.mark.recorded
async def test_futures_captures_of_2021_are_served(recorded_data: Path) -> None:
    path = recorded_data / "ws-cryptofeed-2021" / "BINANCE_FUTURES.ws.1.0.79508fc5.gz"
    config = SimulatorConfig(replay_files=(path,), replay_market="um", replay_speed=None)
    async with Exchange(config) as exchange:
        url = f"{exchange.um_ws_url}/market/stream?streams=sushiusdt@aggTrade/akrousdt@kline_1m"
        query = {"symbol": "SUSHIUSDT"}
        frames, (rows,) = await _all_frames(exchange, url, [("/fapi/v1/aggTrades", query)])
    sent = [f["data"] for f in frames if f["stream"] == "sushiusdt@aggTrade"]
    assert len(sent) > 20
    assert [row["a"] for row in rows] == [data["a"] for data in sent]


@pytest.mark.recorded
async def test_recording_of_coin_m_is_served_with_base_amounts(recorded_data: Path) -> None:
    folder = recorded_data / "ws-coinm-20240808"
    config = SimulatorConfig(
        replay_files=tuple(sorted(folder.glob("*.gz"))),
        replay_market="cm",
        replay_speed=None,
        replay_start="immediately",
    )
    trades = [
        json.loads(line.partition(" ")[2])["data"]
        for file in config.replay_files
        for line in gzip.decompress(file.read_bytes()).decode().splitlines()
        if "@trade" in line
    ]
    async with Exchange(config) as exchange, httpx.AsyncClient(timeout=30) as client:
        async with asyncio.timeout(60):
            while not (await client.get(f"{exchange.control_url}/sim/replay")).json()["finished"]:
                await asyncio.sleep(0.05)
        query = {"symbol": "BTCUSD_PERP", "interval": "1m"}
        rows = (await client.get(f"{exchange.cm_rest_url}/dapi/v1/klines", params=query)).json()
    assert len(rows) == 10
    for row in rows:
        minute = [one for one in trades if row[0] <= one["T"] <= row[6]]
        assert (row[5], row[8]) == (str(sum(int(one["q"]) for one in minute)), len(minute))
        amount = sum(Decimal(one["q"]) * 100 / Decimal(one["p"]) for one in minute)
        assert Decimal(row[7]) == amount.quantize(Decimal("1e-8"))
