"""A live market and a streamer that serves it, for the serving benchmarks."""

from __future__ import annotations

import resource
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load.stage import Stage, stage

SYMBOLS = 100
NAMES = ",".join(f"S{number:04d}USDT" for number in range(1, SYMBOLS + 1))
"""All symbols, separated by commas."""
TRADES_PER_S = 10_000
KLINE_EVERY_S = 2.0
SETTLE_S = 3.0
CONNECT_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Served:
    """A streamer that serves a live market.

    Attributes:
        sent_times: file with the time at which each trade was sent.
    """

    live: Stage
    api_url: str
    grpc_address: str
    sent_times: Path


@contextmanager
def served(trades_per_s: int = TRADES_PER_S) -> Iterator[Served]:
    """Run a market, PostgreSQL, and a streamer that serves the market."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    with tempfile.TemporaryDirectory(prefix="candelabra-bench-", dir="/dev/shm") as folder:
        sent_times = Path(folder) / "sent-times"
        options = (
            "--symbols", str(SYMBOLS), "--trades-per-s", str(trades_per_s),
            "--kline-every-s", str(KLINE_EVERY_S), "--sent-times", str(sent_times),
        )  # fmt: skip
        ports = free_ports(2)
        settings = {
            "API_PORT": str(ports[0]),
            "GRPC_PORT": str(ports[1]),
            "LOG_LEVEL": "WARNING",
            "API_REQUESTS_PER_MINUTE": "10000000",
        }
        command = ["-m", "cli", "stream", "--symbols", "*USDT"]
        with stage(options, command, settings) as live:
            wait_until_open(ports)
            time.sleep(SETTLE_S)
            yield Served(live, f"http://127.0.0.1:{ports[0]}", f"127.0.0.1:{ports[1]}", sent_times)


def free_ports(count: int) -> list[int]:
    """Return free ports."""
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in taken]
    for one in taken:
        one.close()
    return ports


def wait_until_open(ports: Sequence[int]) -> None:
    """Wait until all ports accept connections.

    Raises:
        TimeoutError: some do not.
    """
    give_up_s = time.monotonic() + CONNECT_TIMEOUT_S
    for port in ports:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except ConnectionRefusedError:
                if time.monotonic() > give_up_s:
                    raise TimeoutError(f"nobody listens on port {port}") from None
                time.sleep(0.1)
