"""An exchange for jobs and its faults; waits between retries, shortened.

A test module of jobs has a fixture `config` for its exchange. The tests check that a retry happens,
not how long it waits.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from include.backoff import Backoff
from include.binance.files import dumps
from include.binance.rest import client as rest
from include.config import Settings
from simulator.config import SimulatorConfig
from simulator.server import ExchangeThread
from streamer.exchange import connection
from streamer.storage import repair_queue as repair
from streamer.symbols import startup
from tests.integration.faults.staging import Afflict, settings_of


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the usual waits, and less."""
    monkeypatch.setattr(rest, "BACKOFF", Backoff(first_s=0.05, max_s=0.2))
    monkeypatch.setattr(dumps, "BACKOFF", Backoff(first_s=0.05, max_s=0.2))
    monkeypatch.setattr(repair, "BACKOFF", Backoff(first_s=0.1, max_s=0.5, min_s=0.05))
    monkeypatch.setattr(repair, "POLL_S", 0.05)
    monkeypatch.setattr(connection, "BACKOFF", Backoff(first_s=0.1, max_s=0.5, min_s=0.05))
    monkeypatch.setattr(startup, "BACKOFF", Backoff(first_s=0.1, max_s=0.2, min_s=0.05))


@pytest.fixture(scope="module")
def exchange(config: SimulatorConfig) -> Iterator[ExchangeThread]:
    """The exchange of a module's jobs."""
    with ExchangeThread(config) as running:
        yield running


@pytest.fixture
def settings(exchange: ExchangeThread, database_url: str, tmp_path: Path) -> Settings:
    return settings_of(exchange, database_url, tmp_path / "home")


@pytest.fixture
def add_faults(exchange: ExchangeThread) -> Iterator[Afflict]:
    """Adds faults that end with the test; returns their ids."""
    added: list[str] = []

    def add(*entries: dict[str, Any]) -> list[str]:
        ids = exchange.faults.add(list(entries))
        added.extend(ids)
        return ids

    yield add
    for identity in added:
        exchange.faults.remove(identity)
