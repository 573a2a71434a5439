"""Fixtures for the tests of the streamer's parts."""

from __future__ import annotations

import pytest

from tests.unit.streamer.played_exchange import Results


@pytest.fixture
def results() -> Results:
    return Results()
