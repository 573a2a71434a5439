"""What ``/health`` and ``/ready`` of the real process say in each fault."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from deploy.local.postgres import EmbeddedPostgres
from include.store.migrate import migrate
from simulator.config import SimulatorConfig
from simulator.server import ExchangeThread
from tests.ports import steady_port

ROOT = Path(__file__).parents[3]
HANGS_S = 1.0
"""A check that waits longer than this counts as not answered."""


class ServerProcess:
    """A process and what it says of itself."""

    def __init__(self, process: subprocess.Popen[bytes], log_file: Path) -> None:
        self.process = process
        self._log_file = log_file

    @property
    def url(self) -> str:
        for line in self._log_file.read_text().splitlines():
            if '"http_listening"' in line and line.endswith("}"):
                return str(json.loads(line)["url"])
        return ""

    def probe(self) -> tuple[int, int, set[str]]:
        """Status of ``/health`` and of ``/ready`` (0: no answer), and why it is not ready."""
        statuses, codes = [], set()
        for path in ("/health", "/ready"):
            try:
                answer = httpx.get(self.url + path, timeout=HANGS_S)
            except httpx.TimeoutException:
                statuses.append(0)
                continue
            statuses.append(answer.status_code)
            codes |= {reason["code"] for reason in answer.json().get("reasons", [])}
        return statuses[0], statuses[1], codes

    def until(self, holds: Callable[[tuple[int, int, set[str]]], bool]) -> None:
        """Wait for an answer; the process must live, and be healthy while it moves."""
        until_s = time.monotonic() + 60
        while not self.url or not holds(said := self.probe()):
            assert self.process.poll() is None, self._log_file.read_text()
            assert time.monotonic() < until_s, said
            time.sleep(0.1)


@pytest.fixture
def postgres() -> Iterator[EmbeddedPostgres]:
    with tempfile.TemporaryDirectory(prefix="candelabra-health-") as folder:
        Path(folder).chmod(0o755)
        server = EmbeddedPostgres(
            Path(folder) / "pg",
            port=steady_port(),  # after a crash it starts on the same one
            settings={"fsync": "off", "shared_buffers": "32MB"},
        )
        server.start()
        try:
            yield server
        finally:
            server.stop()


def is_ready(said: tuple[int, int, set[str]]) -> bool:
    return said[:2] == (200, 200)


def unready(code: str) -> Callable[[tuple[int, int, set[str]]], bool]:
    return lambda said: said[:2] == (200, 503) and code in said[2]


def test_only_a_blocked_loop_makes_the_process_unhealthy(
    postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    url = postgres.create_database("candelabra")
    migrate(url)
    log_file = tmp_path / "log"
    with ExchangeThread(SimulatorConfig(speed=20, spot_symbols=("BTCUSDT",))) as exchange:
        environment = {
            **os.environ,
            "DATABASE_URL": url,
            "BINANCE_WS_URL": exchange.spot_ws_url,
            "BINANCE_REST_URL": exchange.spot_rest_url,
            "LOG_FORMAT": "json",
            "STREAMER_HTTP_PORT": "0",
            "STALE_STREAM_S": "2",
            "PYTHONPATH": str(ROOT),
        }
        with log_file.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "cli", "stream", "--symbols", "BTCUSDT"],
                env=environment,
                stderr=log,
            )
        one = ServerProcess(process, log_file)
        try:
            one.until(is_ready)

            postgres.kill()
            one.until(unready("database"))
            postgres.start()
            one.until(is_ready)

            (refused,) = exchange.faults.add({"kind": "refuse", "market": "spot"})
            exchange.faults.add({"kind": "cut", "market": "spot"})
            one.until(unready("disconnected"))
            exchange.faults.remove(refused)  # soon: each refusal doubles the next wait
            one.until(is_ready)

            process.send_signal(signal.SIGSTOP)  # no turn of its event loop
            one.until(lambda said: said[:2] == (0, 0))
            process.send_signal(signal.SIGCONT)
            one.until(is_ready)

            process.terminate()
            assert process.wait(timeout=30) == 0
        finally:
            process.kill()
            process.wait()
