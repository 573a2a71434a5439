"""Twenty seeds of chaos, some simulated minutes each, and seeds with which a soak found defects.

``make soak`` runs two hundred; ``CHAOS_SEEDS=7,8,9`` in the environment runs others.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from deploy.local.postgres import EmbeddedPostgres
from tests.chaos.__main__ import FOUND
from tests.chaos.run import run
from tests.chaos.scenario import draw
from tests.chaos.stage.servers import chaos_server

MINUTES = 5
SPEED = 150
AT_ONCE = 2
"""Runs wait most of their time: two of them fit on a core."""
CHOSEN = [int(seed) for seed in os.environ.get("CHAOS_SEEDS", "").split(",") if seed]
SEEDS = CHOSEN or [*range(1, 21)]
SOAK_MINUTES = 120
SOAK_SPEED = 300
STOPPED = (33, 40, 128, 153)
"""Seeds with stops longer than the lookback, which lost minutes without a gap once."""
GROUPS = [SEEDS[first : first + AT_ONCE] for first in range(0, len(SEEDS), AT_ONCE)]
RUNS = [
    pytest.param(seeds, id="-".join(map(str, seeds)), marks=[pytest.mark.long] if place else [])
    for place, seeds in enumerate(GROUPS)
]
"""The first two seeds are part of `make test`."""


@pytest.fixture(scope="module")
def servers() -> Iterator[list[EmbeddedPostgres]]:
    """One for each parallel run, which may strike it."""
    with ExitStack() as stack:
        folders = [
            Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="candelabra-chaos-pg-")))
            for _ in range(AT_ONCE)
        ]
        # One after the other: migrations cannot run in two threads.
        yield [stack.enter_context(chaos_server(folder)) for folder in folders]


@pytest.mark.timeout(420)  # a run that fails says so itself, after its patience
@pytest.mark.parametrize("seeds", RUNS)
def test_table_equals_the_exchange_after_chaos(
    seeds: list[int], servers: list[EmbeddedPostgres], tmp_path: Path
) -> None:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        runs = [
            pool.submit(run, draw(seed, minutes=MINUTES, speed=SPEED), server, keep=tmp_path)
            for seed, server in zip(seeds, servers, strict=False)
        ]
    failures = [str(one.exception()) for one in runs if one.exception() is not None]
    assert not failures, "\n\n".join(failures)
    for outcome in (one.result() for one in runs):
        assert outcome.minutes > 0
        assert outcome.streamed > 0, f"seed {outcome.seed}: the stream itself verified nothing"
        assert "kill" in outcome.strikes
        assert not outcome.gaps.silent, f"seed {outcome.seed}: jobs did the streamer's work"


@pytest.mark.long
@pytest.mark.timeout(420)
@pytest.mark.skipif(bool(CHOSEN), reason="other seeds were chosen")
@pytest.mark.parametrize("seed", sorted(FOUND))
def test_defects_found_by_a_soak_stay_fixed(
    seed: int, servers: list[EmbeddedPostgres], tmp_path: Path
) -> None:
    scenario = draw(seed, minutes=SOAK_MINUTES, speed=SOAK_SPEED, is_basic=True)
    outcome = run(scenario, servers[0], keep=tmp_path)
    assert outcome.minutes > 0
    assert outcome.streamed > 0


@pytest.mark.long
@pytest.mark.timeout(420)
@pytest.mark.skipif(bool(CHOSEN), reason="other seeds were chosen")
@pytest.mark.parametrize("seed", STOPPED)
def test_stop_longer_than_the_lookback_loses_no_minute(
    seed: int, servers: list[EmbeddedPostgres], tmp_path: Path
) -> None:
    scenario = draw(seed, minutes=SOAK_MINUTES, speed=SOAK_SPEED)
    assert "long_stop" in run(scenario, servers[0], keep=tmp_path).strikes
