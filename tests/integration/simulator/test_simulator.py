"""`python -m simulator` as a process."""

import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from simulator.cli import build_parser, parse_config
from simulator.config import SimulatorConfig
from tests.integration.simulator.command_line import exit_code

ROOT = Path(__file__).parents[3]
COMMAND = [sys.executable, "-m", "simulator"]


@contextmanager
def _running(*options: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    process = subprocess.Popen(
        [*COMMAND, *options], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline())
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=30)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_process_prints_its_urls_serves_and_stops_on_a_signal(number: signal.Signals) -> None:
    with _running("--symbols", "BTCUSDT", "--um-symbols", "BTCUSDT") as (process, ready):
        assert ready["event"] == "simulator_ready"
        assert {"spot_ws_url", "um_ws_url", "spot_rest_url", "um_rest_url", "dump_url"} <= set(
            ready
        )
        time_url = f"{ready['spot_rest_url']}/api/v3/time"
        served = httpx.get(time_url).json()["serverTime"]
        assert abs(served / 1_000 - time.time()) < 5
        with connect(f"{ready['spot_ws_url']}/ws/btcusdt@trade", close_timeout=0.1):
            began = time.monotonic()
            process.send_signal(number)
            assert process.wait(timeout=30) == 0
            assert time.monotonic() - began < 8
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_port_in_use_is_reported_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert exit_code("--spot-ws-port", str(port)) == 2
    printed = capsys.readouterr()
    assert f"127.0.0.1:{port}" in printed.err
    assert printed.out == ""


def test_missing_recording_is_reported_without_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code("--replay", str(tmp_path / "none.gz")) == 2
    assert "none.gz" in capsys.readouterr().err


def test_every_option_is_described_in_the_docs() -> None:
    text = (ROOT / "docs" / "simulator.md").read_text()
    options = re.findall(r"(?<!\w)--[a-z-]+", build_parser().format_help())
    assert len(set(options)) > 20
    assert [option for option in set(options) - {"--help"} if f"`{option}" not in text] == []


def test_every_setting_has_an_option() -> None:
    config, _ = parse_config([])
    assert config == SimulatorConfig()
    inner = {
        "write_buffer_bytes", "max_streams", "inbound_messages_per_s", "replay_speed",
        "trades_at_bounds",  # of chaos runs
        "max_late_s",
    }  # fmt: skip
    dests = {action.dest for action in build_parser()._actions}
    assert set(SimulatorConfig.__dataclass_fields__) - inner <= dests
