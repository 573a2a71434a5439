"""Caching of sessions and tokens, with a simulated PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection
from typing import Any

import pytest

from include.domain.accounts import AuthMethod, Identity, LoginOutcome, Role
from include.errors import PermanentError, TransientError
from include.store.accounts.credentials import secret_hash
from include.store.accounts.logins import LoginAttempt
from include.store.accounts.users import Password
from include.store.accounts.watchlists import ACCESS_CHANNEL
from serving.auth import service as module
from serving.auth.client_network import network_of
from serving.auth.login_queue import MAX_WAITING, LoginRefusedError
from serving.auth.service import CACHE_TTL_S, OUTAGE_TTL_S, AuthService

HOUR_S = 3_600.0
NOBODY: Any = None
HOME = network_of("192.0.2.1")
ELSEWHERE = network_of("198.51.100.1")


def identity(expires_s: float | None = None) -> Identity:
    expires_us = None if expires_s is None else int(expires_s * 1_000_000)
    return Identity(1, "anna", Role.READER, AuthMethod.SESSION, 7, expires_us)


class Played:
    """A database of identities that counts its reads."""

    def __init__(self) -> None:
        self.now_s = 1_000.0
        self.known: dict[bytes, Identity] = {}
        self.asked = 0
        self.before_answer: Callable[[], None] = lambda: None
        self.auth = AuthService("postgresql://nobody@127.0.0.1:1/none", clock=lambda: self.now_s)
        self.auth._database = self  # type: ignore[assignment]

    async def call(self, call: Callable[[Any], Any]) -> Any:
        return call(None)

    def identities(self, _connection: None, hashes: Collection[bytes]) -> dict[bytes, Identity]:
        self.asked += 1
        found = {one: self.known[one] for one in hashes if one in self.known}
        self.before_answer()
        return found


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Played:
    played = Played()
    monkeypatch.setattr(module, "identities", played.identities)
    return played


async def test_principals_are_cached_for_half_a_minute(played: Played) -> None:
    played.known[secret_hash("s")] = identity()
    for _ in range(5):
        found = await played.auth.principal("s")
        assert found is not None
        assert found.identity.name == "anna"
        assert await played.auth.principal("other") is None
    assert played.asked == 2
    played.now_s += CACHE_TTL_S + 1
    del played.known[secret_hash("s")]
    assert await played.auth.principal("s") is None


async def test_cached_principals_outlive_a_short_database_outage(
    played: Played,
) -> None:
    played.known[secret_hash("s")] = identity()
    assert await played.auth.principal("s") is not None

    def away() -> None:
        raise TransientError("away")

    played.before_answer = away
    for _ in range(3):  # asked again now and then, not for each request
        played.now_s += CACHE_TTL_S + 1
        for _ in range(5):
            assert await played.auth.principal("s") is not None
    assert played.asked == 4
    with pytest.raises(TransientError):
        await played.auth.principal("other")
    played.now_s += OUTAGE_TTL_S
    with pytest.raises(TransientError):
        await played.auth.principal("s")


async def test_cached_session_still_expires_on_time(played: Played) -> None:
    played.known[secret_hash("s")] = identity(expires_s=played.now_s + 5)
    assert await played.auth.principal("s") is not None
    played.now_s += 6
    assert await played.auth.principal("s") is None
    assert played.asked == 1


async def test_read_that_precedes_the_end_of_a_session_is_not_cached(
    played: Played,
) -> None:
    played.known[secret_hash("s")] = identity()

    def ended() -> None:  # while the answer is on its way
        played.known.clear()
        played.auth._known.clear()
        played.auth._forgotten += 1

    played.before_answer = ended
    assert await played.auth.principal("s") is not None
    assert await played.auth.principal("s") is None


async def test_cache_is_bounded(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CACHED", 10)
    for number in range(50):
        assert await played.auth.principal(f"guess {number}") is None
    assert len(played.auth._known) == 10
    assert await played.auth.principal("x" * 10_000) is None
    assert played.asked == 50


async def test_open_connections_end_with_their_session(played: Played) -> None:
    for name, expires_s in (("kept", None), ("ended", None), ("short", played.now_s + 0.05)):
        played.known[secret_hash(name)] = identity(expires_s)
    with contextlib.ExitStack() as stack:
        guests = {}
        for name in ("kept", "ended", "short"):
            principal = await played.auth.principal(name)
            assert principal is not None
            guests[name] = stack.enter_context(played.auth.stay(principal))
        async with asyncio.timeout(10):
            await guests["short"].over.wait()
        assert not guests["ended"].over.is_set()
        del played.known[secret_hash("ended")]
        await played.auth._take(NOBODY, frozenset({ACCESS_CHANNEL}))
        assert guests["ended"].over.is_set()
        assert not guests["kept"].over.is_set()
    assert played.auth._open_connections == set()


@pytest.fixture
def anna(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Anna's account, which a test may change; who asks for another name gets none."""
    account: dict[str, Any] = {
        "is_disabled": False,
        "hash": "$argon2id$of anna's",
        "begun": 0,
        "recorded": [],
    }

    def password_of(_connection: None, name: str) -> Password | None:
        if name != "anna":
            return None
        return Password(1, name, Role.READER, account["hash"], account["is_disabled"])

    def begin_session(_connection: None, login: Password, **_: object) -> Identity:
        account["begun"] += 1
        return identity()

    monkeypatch.setattr(module, "password_of", password_of)

    def record_logins(_connection: None, attempts: list[LoginAttempt]) -> list[Any]:
        account["recorded"] += attempts
        return [(one, one.name if one.name == "anna" else None) for one in attempts]

    monkeypatch.setattr(module, "begin_session", begin_session)
    monkeypatch.setattr(module, "record_logins", record_logins)
    return account


async def test_login_checks_a_password_even_of_unknown_accounts(
    played: Played, anna: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = []

    def is_password(password: str, password_hash: str | None) -> bool:
        checked.append(password_hash)
        return password == "correct horse" and password_hash is not None

    monkeypatch.setattr(module, "is_password", is_password)
    assert await played.auth.log_in("anna", "correct horse", HOME) is not None
    assert await played.auth.log_in("anna", "wrong horse", HOME) is None
    assert await played.auth.log_in("nobody", "correct horse", HOME) is None
    assert await played.auth.log_in("no\x00body", "correct horse", HOME) is None
    anna["is_disabled"] = True
    assert await played.auth.log_in("anna", "correct horse", HOME) is None
    assert checked == [anna["hash"], anna["hash"], None, None, anna["hash"]]
    assert anna["begun"] == 1


async def test_waiting_password_checks_are_bounded(
    played: Played, anna: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "is_password", lambda password, _: password == "correct horse")
    tries = [played.auth.log_in("anna", "wrong horse", HOME) for _ in range(MAX_WAITING + 4)]
    found = await asyncio.gather(*tries, return_exceptions=True)
    assert [one for one in found if one is None] == [None] * (MAX_WAITING + 1)
    assert {type(one) for one in found} == {type(None), LoginRefusedError}
    assert await played.auth.log_in("anna", "correct horse", ELSEWHERE) is not None


async def test_every_login_is_recorded_with_its_network(
    played: Played, anna: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "is_password", lambda password, _: password == "correct horse")
    await played.auth.log_in("anna", "correct horse", HOME)
    await played.auth.log_in("anna", "wrong horse", ELSEWHERE)
    await played.auth.log_in("correct horse", "anna", HOME)
    assert anna["recorded"] == [
        LoginAttempt(LoginOutcome.SUCCEEDED, "anna", "192.0.2.1/32"),
        LoginAttempt(LoginOutcome.FAILED, "anna", "198.51.100.1/32"),
        LoginAttempt(LoginOutcome.FAILED, "correct horse", "192.0.2.1/32"),
    ]


async def test_unchanged_watchlist_is_sent_again_to_its_editor(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if another client reverted the change before the notification came."""
    lists = {1: ["BTCUSDT"], 2: ["ETHUSDT"]}
    monkeypatch.setattr(
        module, "watchlist", lambda _connection, user_id: [(one, 0) for one in lists[user_id]]
    )
    auth = played.auth
    async with (
        contextlib.aclosing(auth.watchlists(1)) as ours,
        contextlib.aclosing(auth.watchlists(2)) as theirs,
    ):
        assert (await anext(ours), await anext(theirs)) == (("BTCUSDT",), ("ETHUSDT",))
        await auth.publish_watchlist(1)
        assert await anext(ours) == ("BTCUSDT",)
        lists[2].append("ADAUSDT")
        await auth.publish_watchlist(2)
        assert await anext(theirs) == ("ETHUSDT", "ADAUSDT")


def test_watchlist_read_earlier_does_not_replace_a_later_one() -> None:
    follower = module._WatchlistFollower(1)
    follower.take(("NEW",), 2)
    follower.take(("OLD",), 1, force=True)
    assert (follower.symbols, follower.is_due) == (("NEW",), True)


async def test_required_accounts_need_a_database() -> None:
    with pytest.raises(PermanentError, match="ACCOUNTS_DATABASE_URL or DATABASE_URL"):
        AuthService("", is_required=True)
    nobody = AuthService("")
    assert not nobody.has_database
    assert await nobody.has_accounts() is False
    assert await nobody.principal("anything") is None
    await nobody.run()
    nobody.close()


async def test_whether_there_are_accounts_is_cached_and_unknown_without_an_answer(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[bool | Exception] = [False, TransientError("away"), True]

    def read(_connection: None) -> bool:
        one = found.pop(0)
        if isinstance(one, Exception):
            raise one
        return one

    monkeypatch.setattr(module, "can_anyone_log_in", read)
    seen = []
    for passed_s in (0.0, CACHE_TTL_S - 1, 1.0, 1.0, module.RETRY_INTERVAL_S):
        played.now_s += passed_s
        seen.append(await played.auth.has_accounts())
    assert seen == [False, False, None, None, True]
