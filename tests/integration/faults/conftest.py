"""Waits between tries, shortened: what is tested is that it is tried again, not how patiently."""

from __future__ import annotations

import pytest

from include.backoff import Backoff
from include.binance import dumps, rest
from streamer import connection, repair, startup


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the usual waits, and less."""
    monkeypatch.setattr(rest, "BACKOFF", Backoff(first_s=0.05, most_s=0.2))
    monkeypatch.setattr(dumps, "BACKOFF", Backoff(first_s=0.05, most_s=0.2))
    monkeypatch.setattr(repair, "BACKOFF", Backoff(first_s=0.1, most_s=0.5, least_s=0.05))
    monkeypatch.setattr(repair, "POLL_S", 0.05)
    monkeypatch.setattr(connection, "BACKOFF", Backoff(first_s=0.1, most_s=0.5, least_s=0.05))
    monkeypatch.setattr(startup, "BACKOFF", Backoff(first_s=0.1, most_s=0.2, least_s=0.05))
