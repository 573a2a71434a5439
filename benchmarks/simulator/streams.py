"""Frames a second from the simulator to one reader over loopback, against a plain socket.

The simulated market's aggTrades are recorded to a file. The simulator replays the file in its own
process at ``--speed max``. The bare limit is a process that only sends the same bytes in large
writes. The server and the reader are pinned to two different cores if there are two. The reader
reads bytes from the socket and walks from header to header of the WebSocket frames. It decodes
nothing, and is still the larger part of the measured cost. Each run must deliver every frame of the
recording, to the byte.
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
from simulator.replay.recorded_frames import merge_frames
from simulator.replay.recorder import record
from simulator.streams.hub import encode_text_frame

ROUNDS = 3
RECEIVE_BYTES = 1 << 18
START = datetime(2026, 1, 5, tzinfo=UTC)
LISTED = 50
"""Number of symbols in the large recording, from silent to busy."""

CORES = sorted(os.sched_getaffinity(0))
"""The last core runs the server, the first one the reader; both are the same if there is only one.
"""

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
class Recorded:
    """A recording of aggTrades and its streams."""

    path: Path
    streams: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Case:
    """What one reader requests, and what it must receive.

    Attributes:
        path: file with the expected bytes, for the plain socket.
        memory_mib: memory in which the simulator may prepare frames; 0: it reads the file while it
            replays.
    """

    name: str
    recorded: Recorded
    target: str
    path: Path
    frames: int
    bytes: int
    memory_mib: int = 512


def make_recording(folder: Path, *, listed: int, days: int) -> Recorded:
    """Record the aggTrades of BTCUSDT, or of some listings, over some days."""
    symbols = ("BTCUSDT",) if listed == 1 else ("BTCUSDT", "ETHUSDT", "PEPEUSDT")
    generated = listed - len(symbols)
    names = [*symbols, *(f"SIM{number:04d}USDT" for number in range(1, generated + 1))]
    streams = tuple(f"{name.lower()}@aggTrade" for name in names)
    path = folder / f"{listed}.gz"
    record(
        SimulatorConfig(
            spot_symbols=symbols,
            generated_spot=generated,
            record_file=path,
            record_streams=streams,
            record_from=START,
            record_until=START + timedelta(days=days),
        )
    )
    return Recorded(path, streams)


def make_case(
    name: str, recorded: Recorded, streams: Sequence[str], *, combined: bool, memory_mib: int = 512
) -> Case:
    """Return the frames of some streams of a recording, combined or raw."""
    path = recorded.path.with_name(f"{name.replace(' ', '-')}.wire")
    frames = 0
    with path.open("wb") as file:
        for frame in merge_frames([recorded.path]):
            if frame.stream in streams:
                file.write(encode_text_frame(frame.frame if combined else frame.payload))
                frames += 1
    target = f"/stream?streams={'/'.join(streams)}" if combined else f"/ws/{'/'.join(streams)}"
    return Case(name, recorded, target, path, frames, path.stat().st_size, memory_mib)


def make_cases(folder: Path) -> list[Case]:
    """Return the cases: one symbol and many, both formats, some of the streams, no preparation."""
    one = make_recording(folder, listed=1, days=3)
    many = make_recording(folder, listed=LISTED, days=1)
    return [
        make_case("one symbol", one, one.streams, combined=True),
        make_case("one symbol, raw", one, one.streams, combined=False),
        make_case(f"{LISTED} symbols", many, many.streams, combined=True),
        make_case(f"every second of {LISTED} symbols", many, many.streams[::2], combined=True),
        make_case("one symbol, unprepared", one, one.streams, combined=True, memory_mib=0),
    ]


def count_frames(connection: socket.socket, wanted: int, held: bytes = b"") -> int:
    """Read a number of WebSocket frames; return their bytes, heads included."""
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


def open_stream(port: int, target: str) -> tuple[socket.socket, bytes]:
    """Open a WebSocket: the socket, and the bytes after the handshake."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    connection.sendall(
        f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
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


@contextmanager
def serving(command: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Start a server process on its core; yield its id and the first line that it prints."""
    process = subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        os.sched_setaffinity(process.pid, CORES[-1:])
        assert process.stdout is not None
        yield process.pid, process.stdout.readline()
    finally:
        process.terminate()
        process.wait(timeout=10)


def cpu_s(process_id: int) -> float:
    """CPU seconds that a process has used, in steps of the kernel's clock (10 ms)."""
    text = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(text[11]) + int(text[12])) / os.sysconf("SC_CLK_TCK")


def simulator_run(case: Case) -> tuple[float, float]:
    """Replay once; return seconds from the first byte to the last frame, and the server's CPU
    seconds."""
    options = ["--replay", str(case.recorded.path), "--speed", "max", "--log-level", "error"]
    options += ["--replay-memory-mib", str(case.memory_mib)]
    with serving(["-m", "simulator", *options]) as (process_id, ready):
        port = int(json.loads(ready)["spot_ws_url"].rpartition(":")[2])
        before_s = cpu_s(process_id)
        connection, held = open_stream(port, case.target)
        with connection:
            took_s = _timed(connection, case, held)
        return took_s, cpu_s(process_id) - before_s


def bare_run(case: Case) -> float:
    """Return the seconds in which a process that does nothing else sends the same bytes."""
    with (
        serving(["-c", BARE_SERVER, str(case.path)]) as (_, port),
        socket.create_connection(("127.0.0.1", int(port)), timeout=60) as connection,
    ):
        connection.sendall(b"!")
        return _timed(connection, case, b"")


def _timed(connection: socket.socket, case: Case, held: bytes) -> float:
    held = held or connection.recv(1)
    began = time.perf_counter()
    taken = count_frames(connection, case.frames, held)
    took_s = time.perf_counter() - began
    if taken != case.bytes:
        raise ConnectionError(f"{taken:,} bytes came in place of {case.bytes:,}")
    return took_s


def run() -> None:
    """Print rates and ratios of all cases."""
    try:
        with tempfile.TemporaryDirectory(prefix="candelabra-bench-") as folder:
            cases = make_cases(Path(folder))
            os.sched_setaffinity(0, CORES[:1])
            for case in cases:
                _report(case)
    finally:
        os.sched_setaffinity(0, CORES)


def _report(case: Case) -> None:
    rates, limits, busy_s = [], [], 0.0
    for _ in range(ROUNDS):
        took_s, server_s = simulator_run(case)
        rates.append(case.frames / took_s)
        limits.append(case.frames / bare_run(case))
        busy_s += server_s
    middle, limit = statistics.median(rates), statistics.median(limits)
    per_million_s = busy_s / ROUNDS / case.frames * 1e6
    print(
        f"simulator, {case.name}: {case.frames:,} aggTrades to one reader, median "
        f"{middle:,.0f} frames/s ({min(rates):,.0f} to {max(rates):,.0f}), a plain socket "
        f"{limit:,.0f}: ratio {middle / limit:.2f}; the server's core was busy for "
        f"{per_million_s:.2f} s a million frames"
    )
