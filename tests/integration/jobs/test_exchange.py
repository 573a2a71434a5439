"""All processes at this address together never exceed the weight of a minute."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx
import psycopg
import pytest

from include.config import Settings
from include.domain.timeframes import MINUTE_US, to_us
from include.store.candles.minutes import missing_minutes
from include.store.postgres.pools import connect
from simulator.config import SimulatorConfig
from simulator.rest.limits import WeightCharge, WeightLimiter
from simulator.server import ExchangeThread
from tests.integration.jobs.minutes_of_weight import end_minute_in

START = to_us(datetime(2026, 1, 18, tzinfo=UTC))
BUDGET = 60
"""Weight a minute: one per cent of the exchange's 6,000, by the setting."""

LIMIT = BUDGET + 10
TASKS, TASK_MINUTES = 4, 3_000
REPAIRS = 5

LEFT_S = 12
"""Of the minute in which they all begin: the next one comes soon."""

TASK = """
import sys
from include.config import load_settings
from include.jobs.klines.backfill import load_rest_piece
from include.jobs.klines.pieces import RestPiece
print("ready", flush=True)
sys.stdin.readline()
start_us, end_us = int(sys.argv[1]), int(sys.argv[2])
piece = RestPiece("COSUSDT", "x", start_us, end_us)
load_rest_piece(settings=load_settings(), piece=piece)
"""
# as the streamer repairs: with its own role
STREAMER = """
import sys
from include.config import load_settings
from include.jobs.klines.repair import repair_minutes
print("ready", flush=True)
sys.stdin.readline()
settings = load_settings()
for start_us in map(int, sys.argv[1:]):
    repair_minutes(
        settings=settings, symbol="BIFIUSDT", start_us=start_us, end_us=start_us + 60_000_000,
        database_url=settings.url_for("streamer"),
    )
"""


def started(command: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
    """Python that waits for a line before it asks anybody."""
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-c", *command],
        env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True,
    )  # fmt: skip


@dataclass(slots=True)
class Charge:
    minute: int
    weight: int
    verdict: WeightCharge


@pytest.fixture
def charges(monkeypatch: pytest.MonkeyPatch) -> list[Charge]:
    """Each request's weight as the exchange counts it."""
    found: list[Charge] = []
    real = WeightLimiter.charge

    def charge(self: WeightLimiter, address: str, weight: int) -> WeightCharge:
        verdict = real(self, address, weight)
        found.append(Charge(self._clock.now_us() // MINUTE_US, weight, verdict))
        return verdict

    monkeypatch.setattr(WeightLimiter, "charge", charge)
    return found


@pytest.fixture(scope="module")
def exchange() -> Iterator[ExchangeThread]:
    config = SimulatorConfig(
        spot_symbols=("COSUSDT", "BIFIUSDT"),
        um_symbols=(),
        start=datetime(2026, 1, 17, tzinfo=UTC),
        clock_start=datetime(2026, 1, 28, 6, tzinfo=UTC),
        spot_weight_limit=LIMIT,
    )
    with ExchangeThread(config) as running:
        yield running


@pytest.mark.long
def test_four_tasks_a_streamer_and_a_stranger_stay_within_the_weight(
    exchange: ExchangeThread, make_settings: Callable[..., Settings],
    connection: psycopg.Connection, charges: list[Charge],
) -> None:  # fmt: skip
    settings = make_settings(rest_weight_share=BUDGET / 6_000)
    environment = os.environ | {
        "JOBS_DATABASE_URL": settings.jobs_database_url,
        "STREAMER_DATABASE_URL": settings.streamer_database_url,
        "BINANCE_REST_URL": settings.binance_rest_url,
        "CANDELABRA_HOME": str(settings.candelabra_home),
        "REST_WEIGHT_SHARE": str(settings.rest_weight_share),
    }
    spans = [
        (START + n * TASK_MINUTES * MINUTE_US, START + (n + 1) * TASK_MINUTES * MINUTE_US)
        for n in range(TASKS)
    ]
    commands = [[TASK, str(start_us), str(end_us)] for start_us, end_us in spans]
    repaired = [START + n * 600 * MINUTE_US for n in range(REPAIRS)]
    commands.append([STREAMER, *map(str, repaired)])
    with ExitStack() as running:
        tasks = [running.enter_context(started(command, environment)) for command in commands]
        for task in tasks:
            assert task.stdout.readline() == "ready\n"
        end_minute_in(exchange, connection, left_s=LEFT_S)
        # another client at this address, known from the header alone
        for _ in range(15):
            answer = httpx.get(
                f"{exchange.spot_rest_url}/api/v3/klines",
                params={"symbol": "COSUSDT", "interval": "1m", "limit": 1},
                trust_env=False,
            )
            answer.raise_for_status()
        with ThreadPoolExecutor(len(tasks)) as pool:
            told = list(pool.map(lambda task: task.communicate("go\n", timeout=160), tasks))

    assert [task.returncode for task in tasks] == [0] * len(tasks), told
    assert any("weight_awaited" in out for out, _ in told), "nobody had to wait"
    by_minute: dict[int, int] = {}
    for charge in charges:
        by_minute[charge.minute] = by_minute.get(charge.minute, 0) + charge.weight
    assert {charge.verdict.status for charge in charges} == {200}
    assert max(by_minute.values()) <= LIMIT
    assert len(by_minute) >= 2
    with connect(settings.jobs_database_url, application_name="test") as connection:
        for start_us, end_us in spans:
            assert missing_minutes(connection, "COSUSDT", start_us, end_us) == []
        for start_us in repaired:
            assert not missing_minutes(connection, "BIFIUSDT", start_us, start_us + MINUTE_US)
