"""A database with a few minutes of two symbols."""

from __future__ import annotations

import pytest

from tests.integration.serving.http.api_client import fill


@pytest.fixture
def stored_url(database_url: str) -> str:
    fill(database_url)
    return database_url
