"""Connections to a migrated database of the test's own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg import sql

from include.store.postgres.pools import connect

Connection = psycopg.Connection[Any]


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    """The owner's connection, in autocommit."""
    with connect(database_url, application_name="test") as opened:
        yield opened


@pytest.fixture
def connect_again(database_url: str) -> Iterator[Callable[[str], Connection]]:
    """Opens further connections under a name; they are closed after the test."""
    opened: list[Connection] = []

    def again(name: str) -> Connection:
        opened.append(connect(database_url, application_name=name))
        return opened[-1]

    yield again
    for each in opened:
        each.close()


@pytest.fixture
def acting_as(connection: Connection) -> Callable[[str], Any]:
    """Runs a block with the rights of a role."""

    @contextmanager
    def acting(role: str) -> Iterator[Connection]:
        connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))
        try:
            yield connection
        finally:
            connection.execute("RESET ROLE")

    return acting


@pytest.fixture
def wait_until_blocked(connection: Connection) -> Callable[[str], None]:
    """Waits until the session of that name waits for a lock."""

    def wait(name: str, *, timeout_s: float = 10.0) -> None:
        deadline = time.monotonic() + timeout_s
        asked = (
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE application_name = %s AND wait_event_type = 'Lock'"
        )
        while connection.execute(asked, (name,)).fetchone() != (1,):
            assert time.monotonic() < deadline, f"{name} was never blocked"
            time.sleep(0.01)

    return wait
