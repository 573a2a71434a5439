"""Frames a second from the simulator to one reader over loopback, against a plain socket.

The simulated market's aggTrades are recorded to a file and replayed at ``--speed max`` by the
simulator's own process; the bare limit is a process that does nothing but send the same bytes by
large writes. The server is pinned to one core and the reader to another, where there are two. The
reader takes bytes from the socket and walks from head to head of the WebSocket frames; nothing is
decoded. Each run must deliver every frame of the recording.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from simulator.config import SimulatorConfig
from simulator.replay.blocks import make_blocks
from simulator.replay.frames import merge_frames
from simulator.replay.recorder import record

ROUNDS = 5
RECEIVE_BYTES = 1 << 18
START = datetime(2026, 1, 5, tzinfo=UTC)
LISTED = 50
"""Symbols of the recording with many of them, from silent to busy."""

BARE_SERVER = """
import socket, sys
content = memoryview(open(sys.argv[1], "rb").read())
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
connection, _ = listener.accept()
connection.recv(1)
for begin in range(0, len(content), 1 << 18):
    connection.sendall(content[begin : begin + (1 << 18)])
connection.recv(1)
"""


@dataclass(frozen=True, slots=True)
class Sample:
    """A recording: its file, its streams, and what of it one reader must get."""

    path: Path
    streams: tuple[str, ...]
    frames: int
    bytes: int


def sample(folder: Path, *, listed: int, days: int) -> Sample:
    """Record the aggTrades of BTCUSDT, or of so many listings, over some days."""
    symbols = ("BTCUSDT",) if listed == 1 else ("BTCUSDT", "ETHUSDT", "PEPEUSDT")
    generated = listed - len(symbols)
    names = [*symbols, *(f"SIM{number:04d}USDT" for number in range(1, generated + 1))]
    streams = tuple(f"{name.lower()}@aggTrade" for name in names)
    path = folder / f"{listed}.gz"
    made = record(
        SimulatorConfig(
            spot_symbols=symbols,
            generated_spot=generated,
            record_file=path,
            record_streams=streams,
            record_from=START,
            record_until=START + timedelta(days=days),
        )
    )
    wire = path.with_suffix(".wire")
    with wire.open("wb") as file:
        for block in make_blocks(merge_frames([path]), {}):
            file.write(block.wire)
    return Sample(path, streams, made.frames, wire.stat().st_size)


def count_frames(connection: socket.socket, wanted: int, held: bytes = b"") -> int:
    """Read until so many WebSocket frames have come; returns their bytes, heads included."""
    buffer = bytearray(held)
    space = bytearray(RECEIVE_BYTES)
    count = taken = 0
    while True:
        at, size = 0, len(buffer)
        while count < wanted and at + 2 <= size:
            length = buffer[at + 1]
            if length < 126:
                end = at + 2 + length
            elif length == 126:
                end = (
                    at + 4 + (buffer[at + 2] << 8) + buffer[at + 3] if at + 4 <= size else size + 1
                )
            else:
                end = at + 10 + int.from_bytes(buffer[at + 2 : at + 10], "big")
            if end > size:
                break
            at = end
            count += 1
        del buffer[:at]
        taken += at
        if count == wanted:
            return taken
        received = connection.recv_into(space)
        if not received:
            raise ConnectionError(f"the server ended after {count:,} of {wanted:,} frames")
        buffer += memoryview(space)[:received]


def open_stream(port: int, streams: Sequence[str]) -> tuple[socket.socket, bytes]:
    """A WebSocket to the combined streams: the socket, and what came after the handshake."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    connection.sendall(
        f"GET /stream?streams={'/'.join(streams)} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    head = b""
    while b"\r\n\r\n" not in head:
        head += connection.recv(4_096)
    status, _, rest = head.partition(b"\r\n")
    if b" 101 " not in status:
        raise ConnectionError(f"no WebSocket: {status.decode()}")
    return connection, rest.partition(b"\r\n\r\n")[2]


def cores() -> tuple[set[int], set[int]]:
    """The server's core and the reader's; the same one where there is no other."""
    available = sorted(os.sched_getaffinity(0))
    return {available[-1]}, {available[0]}


@contextmanager
def serving(command: Sequence[str]) -> Iterator[str]:
    """A server process on its core; the first line that it prints."""
    process = subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        os.sched_setaffinity(process.pid, cores()[0])
        assert process.stdout is not None
        yield process.stdout.readline()
    finally:
        process.terminate()
        process.wait(timeout=10)


def simulator_rate(chosen: Sample) -> float:
    """Frames a second of one replay, from the first byte to the last frame."""
    options = ["--replay", str(chosen.path), "--speed", "max", "--log-level", "error"]
    with serving(["-m", "simulator", *options]) as ready:
        port = int(json.loads(ready)["spot_ws_url"].rpartition(":")[2])
        connection, held = open_stream(port, chosen.streams)
        with connection:
            return _timed(connection, chosen, held)


def bare_rate(chosen: Sample) -> float:
    """The same bytes, sent by a process that does nothing else."""
    with (
        serving(["-c", BARE_SERVER, str(chosen.path.with_suffix(".wire"))]) as port,
        socket.create_connection(("127.0.0.1", int(port)), timeout=60) as connection,
    ):
        connection.sendall(b"!")
        return _timed(connection, chosen, b"")


def _timed(connection: socket.socket, chosen: Sample, held: bytes) -> float:
    held = held or connection.recv(1)
    began = time.perf_counter()
    taken = count_frames(connection, chosen.frames, held)
    took_s = time.perf_counter() - began
    if taken != chosen.bytes:
        raise ConnectionError(f"{taken:,} bytes came in place of {chosen.bytes:,}")
    return chosen.frames / took_s


def run() -> None:
    """Print rates and ratios for one symbol and for many."""
    before = os.sched_getaffinity(0)
    try:
        with tempfile.TemporaryDirectory(prefix="candelabra-bench-") as folder:
            for listed, days in ((1, 7), (LISTED, 2)):
                chosen = sample(Path(folder), listed=listed, days=days)
                os.sched_setaffinity(0, cores()[1])
                rates = [(simulator_rate(chosen), bare_rate(chosen)) for _ in range(ROUNDS)]
                os.sched_setaffinity(0, before)
                ours, bare = zip(*rates, strict=True)
                print(
                    f"simulator: {chosen.frames:,} aggTrades of {listed} symbols to one reader: "
                    f"median {statistics.median(ours):,.0f} frames/s ({min(ours):,.0f} to "
                    f"{max(ours):,.0f}), a plain socket {statistics.median(bare):,.0f}: "
                    f"ratio {statistics.median(ours) / statistics.median(bare):.2f}"
                )
    finally:
        os.sched_setaffinity(0, before)
