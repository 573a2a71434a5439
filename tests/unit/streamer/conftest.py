"""Fixtures for the tests of the streamer's parts."""

from __future__ import annotations

import pytest

from streamer.hub.hub import Hub
from tests.unit.streamer.played_exchange import Results
from tests.unit.streamer.played_hub import HubEvents


@pytest.fixture
def results() -> Results:
    return Results()


@pytest.fixture
def hub() -> Hub:
    return Hub()


@pytest.fixture
def hub_events(hub: Hub) -> HubEvents:
    return HubEvents(hub)
