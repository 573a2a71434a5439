from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from tests.integration.streamer.capture.queries import Row


@pytest.fixture
def rows_of(database_url: str) -> Callable[..., Any]:
    async def ask(query: str, *arguments: object) -> list[Row]:
        async with await psycopg.AsyncConnection.connect(database_url) as connection:
            return await (await connection.execute(query, arguments)).fetchall()

    return ask
