"""Replay as fast as clients read: blocks, several clients, bounded memory, warnings."""

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs
from websockets.asyncio.client import ClientConnection, connect

from simulator.config import SimulatorConfig
from simulator.replay.recorded_frames import RecordedFrame, read_frames
from simulator.server import Exchange

STREAMS = ("abcusdt@trade", "abcusdt@bookTicker", "xyzusdt@trade", "xyzusdt@depth")
FIRST_MS = 1_700_000_040_000
SETTLE_S = 30  # tests start the replay themselves


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8,000 frames of four streams, some long, so that there are several blocks."""
    chosen = random.Random(3)
    lines = []
    for number in range(8_000):
        stream = chosen.choice(STREAMS)
        time_ms = FIRST_MS + number * 10
        data: dict[str, Any] = {"s": stream[:7].upper(), "u": number}
        if stream.endswith("@trade"):
            data |= {"e": "trade", "E": time_ms, "t": number, "p": "1.5", "q": "2", "T": time_ms,
                     "m": True}  # fmt: skip
        elif stream.endswith("@depth"):
            data |= {"E": time_ms, "b": [["1.0", "2.0"]] * chosen.choice((1, 30, 6_000 // 90))}
        frame = json.dumps({"stream": stream, "data": data}, separators=(",", ":"))
        lines.append(f"{time_ms * 10**6} {frame}\n")
    path = tmp_path_factory.mktemp("recording") / "frames"
    path.write_text("".join(lines))
    return path


def _expected(path: Path, streams: tuple[str, ...], *, combined: bool) -> list[str]:
    def text(frame: RecordedFrame) -> str:
        return (frame.frame if combined else frame.payload).decode()

    return [text(frame) for frame in read_frames(path) if frame.stream in streams]


async def _receive(ws: ClientConnection, count: int) -> list[str]:
    async with asyncio.timeout(30):
        return [str(await ws.recv()) for _ in range(count)]


READERS = (
    (True, STREAMS),
    (True, STREAMS[1:3]),
    (False, STREAMS[1:3]),
    (False, STREAMS[:1]),
    (True, STREAMS[3:]),
    (True, STREAMS[3:]),
)


@pytest.mark.parametrize("memory_bytes", [0, 400_000, 512 << 20], ids=["none", "some", "all"])
async def test_each_client_gets_its_streams_in_its_form(recording: Path, memory_bytes: int) -> None:
    config = SimulatorConfig(
        replay_files=(recording,),
        replay_speed=None,
        replay_settle_s=SETTLE_S,
        replay_memory_bytes=memory_bytes,
    )
    async with Exchange(config) as exchange:
        replay = exchange.replay
        assert replay is not None
        held = replay.recording.prepared_count
        assert (held > 0, held < 8_000) == (memory_bytes > 0, memory_bytes < 1 << 20)
        assert sum(block.memory_bytes for block in replay.recording.prepared) <= memory_bytes
        root = exchange.spot_ws_url
        connections = [
            await connect(
                f"{root}/stream?streams={'/'.join(streams)}"
                if combined
                else f"{root}/ws/{'/'.join(streams)}",
                max_queue=None,
            )
            for combined, streams in READERS
        ]
        replay.start_now()
        expected = [_expected(recording, streams, combined=form) for form, streams in READERS]
        pairs = zip(connections, map(len, expected), strict=True)
        received = await asyncio.gather(*(_receive(ws, count) for ws, count in pairs))
        assert received == expected
        async with asyncio.timeout(30):
            while not replay.is_finished:
                await asyncio.sleep(0.005)
        assert (replay.frames_played, replay.frames_sent) == (8_000, 8_000)
        for ws in connections:
            await ws.close()


async def test_frames_without_listener_are_played_but_not_sent(recording: Path) -> None:
    config = SimulatorConfig(replay_files=(recording,), replay_speed=None, replay_settle_s=SETTLE_S)
    async with Exchange(config) as exchange:
        replay = exchange.replay
        assert replay is not None
        expected = _expected(recording, STREAMS[:2], combined=True)
        one = await connect(f"{exchange.spot_ws_url}/stream?streams={STREAMS[0]}", max_queue=None)
        url = f"{exchange.spot_ws_url}/stream?streams={STREAMS[0]}/{STREAMS[1]}"
        async with connect(url, max_queue=None) as both:
            replay.start_now()
            assert await _receive(both, len(expected)) == expected
            async with asyncio.timeout(30):
                while not replay.is_finished:
                    await asyncio.sleep(0.005)
        await one.close()
        assert (replay.frames_played, replay.frames_sent) == (8_000, len(expected))


async def test_slow_client_delays_the_replay_and_misses_nothing(recording: Path) -> None:
    config = SimulatorConfig(replay_files=(recording,) * 4, replay_speed=None)
    async with Exchange(config) as exchange:
        replay = exchange.replay
        assert replay is not None
        total = replay.recording.frame_count
        url = f"{exchange.spot_ws_url}/stream?streams={'/'.join(STREAMS)}"
        async with connect(url, max_queue=8) as ws:
            await ws.recv()
            async with asyncio.timeout(30):
                while exchange.replay is not None and not _rests(exchange):
                    await asyncio.sleep(0.005)
            assert 0 < replay.frames_played < total
            assert len(await _receive(ws, total - 1)) == total - 1


def _rests(exchange: Exchange) -> bool:
    """Whether the replay waits for a connection that has too much unsent."""
    return any(
        connection.transport.get_write_buffer_size() > 1 << 20
        for connection in exchange.stream_servers["spot"].connections
    )


async def test_subscription_to_an_unrecorded_stream_is_logged_and_starts_nothing(
    recording: Path,
) -> None:
    config = SimulatorConfig(replay_files=(recording,), replay_speed=None, replay_settle_s=0)
    structlog.reset_defaults()
    with capture_logs() as logs:
        async with Exchange(config) as exchange:
            replay = exchange.replay
            assert replay is not None
            async with connect(f"{exchange.spot_ws_url}/ws") as ws:
                for number, name in enumerate(("abcusdt@aggTrade", STREAMS[0])):
                    message = {"method": "SUBSCRIBE", "params": [name], "id": number}
                    await ws.send(json.dumps(message))
                    assert json.loads(await ws.recv()) == {"result": None, "id": number}
                    if number == 0:
                        await exchange_idles()
                        assert replay.frames_played == 0
                count = len(_expected(recording, STREAMS[:1], combined=False))
                await _receive(ws, count)
                async with asyncio.timeout(30):
                    while not replay.is_finished:
                        await asyncio.sleep(0.005)
                late = {"method": "SUBSCRIBE", "params": [STREAMS[1]], "id": 9}
                await ws.send(json.dumps(late))
                await ws.recv()
    events = {entry["event"]: entry for entry in logs}
    lacks = events["replay_stream_missing"]
    assert (lacks["log_level"], lacks["stream"]) == ("warning", "abcusdt@aggTrade")
    assert set(lacks["streams"]) == set(STREAMS)
    assert events["replay_finished"]["played"] == 8_000
    assert events["replay_finished"]["sent"] == count
    over = events["replay_already_finished"]
    assert (over["log_level"], over["stream"]) == ("warning", STREAMS[1])


async def exchange_idles() -> None:
    """Let the exchange's tasks run."""
    for _ in range(20):
        await asyncio.sleep(0)
