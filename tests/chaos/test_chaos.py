"""Twenty runs of chaos, each some simulated minutes; ``make soak`` runs two hundred.

``CHAOS_SEEDS=7,8,9`` in the environment runs others.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local.postgres import EmbeddedPostgres
from tests.chaos.processes import chaos_server
from tests.chaos.run import run
from tests.chaos.scenario import draw

MINUTES = 5
SPEED = 150
SEEDS = [int(seed) for seed in os.environ.get("CHAOS_SEEDS", "").split(",") if seed] or [
    *range(1, 21)
]


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL of this worker, which may be struck."""
    with (
        tempfile.TemporaryDirectory(prefix="candelabra-chaos-pg-") as folder,
        chaos_server(Path(folder)) as running,
    ):
        yield running


@pytest.mark.parametrize("seed", SEEDS)
def test_after_chaos_the_table_is_the_exchanges(
    seed: int, server: EmbeddedPostgres, tmp_path: Path
) -> None:
    outcome = run(draw(seed, minutes=MINUTES, speed=SPEED), server, keep=tmp_path)
    assert outcome.minutes > 0
    assert "kill" in outcome.strikes
