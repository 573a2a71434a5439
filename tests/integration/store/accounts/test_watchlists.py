"""Watchlists in PostgreSQL."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from include.domain.accounts import Role
from include.errors import RejectedInputError
from include.store.accounts import users as accounts
from include.store.accounts import watchlists

Connection = psycopg.Connection[Any]
HASH = "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaA"


def user(connection: Connection, name: str) -> int:
    accounts.add_user(connection, name, HASH, Role.READER)
    found = accounts.password_of(connection, name)
    assert found is not None
    return found.user_id


async def watched(url: str) -> frozenset[str]:
    async with await psycopg.AsyncConnection.connect(url) as opened:
        return await watchlists.watched_async(opened)


async def test_watched_symbols_are_the_union_over_enabled_accounts(
    connection: Connection, database_url: str
) -> None:
    anna, bob = user(connection, "anna"), user(connection, "bob")
    assert watchlists.watch(connection, anna, "BTCUSDT")
    assert not watchlists.watch(connection, anna, "BTCUSDT")
    assert watchlists.watch(connection, bob, "BTCUSDT")
    assert watchlists.watch(connection, bob, "ETHUSDT.P")
    assert await watched(database_url) == {"BTCUSDT", "ETHUSDT.P"}
    assert [symbol for symbol, _ in watchlists.watchlist(connection, bob)] == [
        "BTCUSDT",
        "ETHUSDT.P",
    ]
    assert [one[:2] for one in watchlists.watchlists(connection, "anna")] == [("anna", "BTCUSDT")]
    accounts.set_disabled(connection, "bob", is_disabled=True)
    assert await watched(database_url) == {"BTCUSDT"}
    assert watchlists.unwatch(connection, anna, "BTCUSDT")
    assert not watchlists.unwatch(connection, anna, "BTCUSDT")
    assert await watched(database_url) == frozenset()
    async with await psycopg.AsyncConnection.connect(database_url) as opened:
        assert await watchlists.watchlists_async(opened, [anna, bob]) == {
            anna: (),
            bob: ("BTCUSDT", "ETHUSDT.P"),
        }


def test_watchlist_is_bounded(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchlists, "MAX_WATCHED", 1)
    anna = user(connection, "anna")
    watchlists.watch(connection, anna, "BTCUSDT")
    assert not watchlists.watch(connection, anna, "BTCUSDT")
    with pytest.raises(RejectedInputError, match="ETHUSDT: the watchlist has 1 symbol, the most"):
        watchlists.watch(connection, anna, "ETHUSDT")
