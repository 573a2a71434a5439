"""PostgreSQL notifications of changed watchlists and ended access."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from include.store.accounts import users as accounts
from include.store.accounts import watchlists
from include.store.accounts.credentials import secret_hash
from include.store.accounts.notifications import notified_channels
from include.store.accounts.watchlists import ACCESS_CHANNEL, WATCHLISTS_CHANNEL
from tests.integration.store.accounts.test_watchlists import HASH, Connection, user


@contextlib.asynccontextmanager
async def listening(url: str) -> AsyncIterator[Callable[[], Any]]:
    """The next notification, within a timeout; all channels are yielded at the start."""
    channels = (WATCHLISTS_CHANNEL, ACCESS_CHANNEL)
    async with contextlib.aclosing(
        notified_channels(url, channels, application_name="test")
    ) as told:

        async def next_notification() -> frozenset[str]:
            async with asyncio.timeout(30):
                return (await anext(told))[1]

        assert await next_notification() == set(channels)
        yield next_notification


BOTH = {WATCHLISTS_CHANNEL, ACCESS_CHANNEL}


@pytest.mark.parametrize(
    ("change", "channels"),
    [
        (lambda c, anna: watchlists.watch(c, anna, "ETHUSDT"), {WATCHLISTS_CHANNEL}),
        (lambda c, anna: watchlists.unwatch(c, anna, "BTCUSDT"), {WATCHLISTS_CHANNEL}),
        (lambda c, _: accounts.set_disabled(c, "anna", is_disabled=True), BOTH),
        (lambda c, _: accounts.remove_user(c, "anna"), BOTH),
        (lambda c, _: accounts.revoke_token(c, "anna", "notebook"), {ACCESS_CHANNEL}),
        (lambda c, _: accounts.end_sessions(c, "anna"), {ACCESS_CHANNEL}),
        (lambda c, _: accounts.set_password(c, "anna", HASH), BOTH),
    ],
)
async def test_each_change_notifies_listeners(
    connection: Connection, database_url: str, change: Callable[..., object], channels: set[str]
) -> None:
    anna = user(connection, "anna")
    watchlists.watch(connection, anna, "BTCUSDT")
    accounts.add_token(connection, "anna", "notebook", secret_hash("token"), days=None)
    login = accounts.password_of(connection, "anna")
    assert login is not None
    accounts.begin_session(connection, login, secret_hash("session"), lifetime_s=60)
    async with listening(database_url) as next_told:
        change(connection, anna)
        assert await next_told() == channels


async def test_notifications_during_a_query_are_not_lost(
    connection: Connection, database_url: str
) -> None:
    anna = user(connection, "anna")
    channels = (WATCHLISTS_CHANNEL,)
    async with (
        contextlib.aclosing(
            notified_channels(database_url, channels, application_name="test")
        ) as told,
        asyncio.timeout(10),
    ):
        reading, _ = await anext(told)
        watchlists.watch(connection, anna, "BTCUSDT")
        for _ in range(3):
            await reading.execute("SELECT 1")  # processes what the server has sent
        assert (await anext(told))[1] == set(channels)
