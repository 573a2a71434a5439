"""Remaining sessions are reported with what they wait for, and block no database for ever."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import errors

from deploy.local.postgres import EmbeddedPostgres
from tests.chaos.stage import servers as module
from tests.chaos.stage.servers import Database, fresh_database


class Server:
    """Refuses to drop its database a number of times."""

    def __init__(self, *, refusals: int) -> None:
        self.refusals = refusals
        self.dropped: list[str] = []

    def create_database(self, name: str, *, template: str) -> str:
        return self.url(f"{template}_{name}")

    def url(self, database: str, **_: str) -> str:
        return f"postgresql://here/{database}"

    def drop_database(self, name: str) -> None:
        self.dropped.append(name)
        if len(self.dropped) <= self.refusals:
            raise errors.ObjectInUse(f"{name} is being accessed by other users")


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DROP_EVERY_S", 0.001)


def test_database_in_use_is_dropped_once_its_sessions_are_gone() -> None:
    server = Server(refusals=3)
    with fresh_database(server, "one"):  # type: ignore[arg-type]
        assert server.dropped == []
    assert server.dropped == ["one"] * 4


def test_drop_of_a_database_in_use_for_long_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_DROP_S", 0.05)
    server = Server(refusals=10_000)
    with pytest.raises(errors.ObjectInUse), fresh_database(server, "one"):  # type: ignore[arg-type]
        pass
    assert len(server.dropped) > 1


def test_sessions_show_what_they_wait_for(postgres: EmbeddedPostgres, database_url: str) -> None:
    name = database_url.rpartition("/")[2]
    with psycopg.connect(database_url, application_name="left") as connection:
        connection.execute("SELECT 7")
        told = Database(postgres, name).sessions()
    assert told == ["left, idle in transaction, Client, ClientRead, SELECT 7"]
