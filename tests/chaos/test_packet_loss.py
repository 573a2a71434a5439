"""Chaos on a network that loses packets: the exchange, PostgreSQL and the streamer share it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NETWORK = Path(__file__).with_name("stage") / "lossy_network.sh"
PERCENT = "3"
SEEDS = (2, 3)
"""The second has raw capture."""


def in_lossy_network(*command: str, timeout_s: float) -> subprocess.CompletedProcess[str]:
    process = subprocess.Popen(
        [str(NETWORK), PERCENT, *command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, errors = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGTERM)  # chaos ends what it started
        process.communicate(timeout=60)
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, errors)


@pytest.fixture(scope="module", autouse=True)
def network() -> None:
    """Skip where this machine cannot make such a network."""
    tried = in_lossy_network("true", timeout_s=30)
    if tried.returncode:
        pytest.skip(f"no network of its own (iproute2 and nftables?): {tried.stderr.strip()}")


@pytest.mark.long
@pytest.mark.timeout(420)
@pytest.mark.parametrize("seed", SEEDS)
def test_lost_packets_lose_no_minute(seed: int, tmp_path: Path) -> None:
    done = in_lossy_network(
        sys.executable, "-m", "tests.chaos", "--seed", str(seed), "--minutes", "5",
        "--speed", "60", "--keep", str(tmp_path), timeout_s=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 runs of 5 simulated minutes: no differences" in done.stdout
    told = re.search(r"lost (\d+) of (\d+) packets", done.stderr)
    assert told is not None, done.stderr
    lost, sent = map(int, told.groups())
    assert sent > 1_000
    assert 0.01 * sent < lost < 0.1 * sent
