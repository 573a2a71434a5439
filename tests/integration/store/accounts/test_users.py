"""Accounts in PostgreSQL: users, sessions, tokens, and who may read or write them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import psycopg
import pytest
from psycopg import errors

from include.domain.accounts import AuthMethod, Role
from include.errors import RejectedInputError
from include.store.accounts import users as accounts
from include.store.accounts.credentials import secret_hash
from include.store.migrate import ACCOUNTS, DBT, JOBS, READER, STREAMER, migrate

Connection = psycopg.Connection[Any]
ActingAs = Callable[[str], AbstractContextManager[Connection]]

HASH = "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaA"
FIRST, SECOND = secret_hash("first"), secret_hash("second")


def anna(connection: Connection, *, role: Role = Role.READER) -> accounts.Password:
    accounts.add_user(connection, "anna", HASH, role)
    found = accounts.password_of(connection, "anna")
    assert found is not None
    return found


def begin(connection: Connection, login: accounts.Password, secret: bytes = FIRST) -> None:
    assert accounts.begin_session(connection, login, secret, lifetime_s=60) is not None


def known(connection: Connection, *secrets: bytes) -> set[bytes]:
    return set(accounts.identities(connection, secrets))


def test_session_identifies_its_account_until_it_ends(connection: Connection) -> None:
    login = anna(connection, role=Role.ADMIN)
    began = accounts.begin_session(connection, login, FIRST, lifetime_s=60)

    assert began is not None
    assert accounts.identities(connection, [FIRST, SECOND]) == {FIRST: began}
    assert (began.name, began.role, began.kind) == ("anna", Role.ADMIN, AuthMethod.SESSION)
    (session,) = accounts.sessions_of(connection, login.user_id)
    assert (session.id, session.expires_us) == (began.key_id, began.expires_us)
    assert session.expires_us - session.created_us == 60_000_000
    assert not accounts.end_session(connection, login.user_id + 1, session.id)
    assert accounts.end_session(connection, login.user_id, session.id)
    assert known(connection, FIRST) == set()


def test_expired_session_is_invalid_and_deleted_by_the_next_login(
    connection: Connection,
) -> None:
    login = anna(connection)
    accounts.begin_session(connection, login, FIRST, lifetime_s=-1)
    assert known(connection, FIRST) == set()
    begin(connection, login, SECOND)
    assert connection.execute("SELECT count(*) FROM accounts.sessions").fetchone() == (1,)


def test_oldest_sessions_are_deleted_beyond_the_limit(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "MAX_SESSIONS", 2)
    login = anna(connection)
    third = secret_hash("third")
    for secret in (FIRST, SECOND, third):
        begin(connection, login, secret)
    assert known(connection, FIRST, SECOND, third) == {SECOND, third}


@pytest.mark.parametrize(
    "change",
    [
        lambda connection: accounts.set_password(connection, "anna", HASH + "x"),
        lambda connection: accounts.set_disabled(connection, "anna", is_disabled=True),
        lambda connection: accounts.end_sessions(connection, "anna"),
        lambda connection: accounts.remove_user(connection, "anna"),
    ],
)
def test_changes_of_an_account_end_all_its_sessions(
    connection: Connection, change: Callable[[Connection], object]
) -> None:
    login = anna(connection)
    begin(connection, login, FIRST)
    begin(connection, login, SECOND)
    change(connection)
    assert known(connection, FIRST, SECOND) == set()


def test_login_fails_if_the_account_changed_meanwhile(
    connection: Connection,
) -> None:
    login = anna(connection)
    accounts.set_password(connection, "anna", HASH + "x")
    assert accounts.begin_session(connection, login, FIRST, lifetime_s=60) is None
    login = accounts.password_of(connection, "anna") or login
    accounts.set_disabled(connection, "anna", is_disabled=True)
    assert accounts.begin_session(connection, login, FIRST, lifetime_s=60) is None
    accounts.set_disabled(connection, "anna", is_disabled=False)
    begin(connection, login)


def test_tokens_are_revoked_by_label(connection: Connection) -> None:
    anna(connection)
    accounts.add_token(connection, "anna", "notebook", FIRST, days=None)
    accounts.add_token(connection, "anna", "server", SECOND, days=30)
    with pytest.raises(RejectedInputError, match="has a token 'server' already"):
        accounts.add_token(connection, "anna", "server", secret_hash("x"), days=None)

    found = accounts.identities(connection, [FIRST, SECOND])
    assert {one.kind for one in found.values()} == {AuthMethod.TOKEN}
    assert found[FIRST].expires_us is None
    assert found[SECOND].expires_us is not None
    assert [one.label for one in accounts.list_tokens(connection)] == ["notebook", "server"]
    accounts.revoke_token(connection, "anna", "server")
    assert known(connection, FIRST, SECOND) == {FIRST}
    accounts.set_disabled(connection, "anna", is_disabled=True)
    assert known(connection, FIRST) == set()
    with pytest.raises(RejectedInputError, match="no token 'server'"):
        accounts.revoke_token(connection, "anna", "server")


def test_users_are_listed_with_sessions_and_tokens(connection: Connection) -> None:
    login = anna(connection)
    begin(connection, login)
    accounts.add_token(connection, "anna", "notebook", SECOND, days=1)
    accounts.add_user(connection, "bob", HASH, Role.ADMIN)
    accounts.set_disabled(connection, "bob", is_disabled=True)
    accounts.set_role(connection, "anna", Role.ADMIN)

    first, second = accounts.list_users(connection)
    assert (first.name, first.role, first.sessions, first.tokens) == ("anna", Role.ADMIN, 1, 1)
    assert (second.name, second.disabled_us is None) == ("bob", False)
    with pytest.raises(RejectedInputError, match="there is an account bob already"):
        accounts.add_user(connection, "bob", HASH, Role.READER)
    assert accounts.password_of(connection, "carol") is None
    for change in (
        lambda: accounts.set_password(connection, "carol", HASH),
        lambda: accounts.remove_user(connection, "carol"),
        lambda: accounts.list_tokens(connection, "carol"),
        lambda: accounts.end_sessions(connection, "carol"),
    ):
        with pytest.raises(RejectedInputError, match="no account 'carol'"):
            change()


@pytest.mark.parametrize("role", [STREAMER, JOBS, DBT, READER])
@pytest.mark.parametrize("table", ["users", "sessions", "tokens", "watched_symbols"])
def test_no_other_role_reads_accounts(
    connection: Connection, acting_as: ActingAs, role: str, table: str
) -> None:
    with acting_as(role), pytest.raises(errors.InsufficientPrivilege):
        connection.execute(f"SELECT * FROM accounts.{table}")  # noqa: S608 - of the list above


def test_streamer_reads_watched_symbols_but_not_the_watchers(
    connection: Connection, acting_as: ActingAs
) -> None:
    with acting_as(STREAMER):
        assert connection.execute("SELECT * FROM accounts.watched").fetchall() == []
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute("DELETE FROM accounts.watched_symbols")


def test_accounts_role_can_log_in_and_out_and_write_watchlists(
    connection: Connection, acting_as: ActingAs
) -> None:
    anna(connection)
    accounts.add_token(connection, "anna", "notebook", SECOND, days=1)
    with acting_as(ACCOUNTS):
        login = accounts.password_of(connection, "anna")
        assert login is not None
        begin(connection, login)
        assert known(connection, FIRST, SECOND) == {FIRST, SECOND}
        (session,) = accounts.sessions_of(connection, login.user_id)
        assert accounts.end_session(connection, login.user_id, session.id)
        assert [one.name for one in accounts.list_users(connection)] == ["anna"]


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO accounts.users (name, password_hash, role) VALUES ('x', 'x', 'admin')",
        "UPDATE accounts.users SET role = 'admin'",
        "DELETE FROM accounts.users",
        "INSERT INTO accounts.tokens (user_id, label, secret_hash) VALUES (1, 'x', '')",
        "UPDATE accounts.sessions SET expires_at = 'infinity'",
        "TRUNCATE accounts.sessions",
        "SELECT * FROM market.candles_1m",
        "SELECT * FROM ops.gaps",
        "CREATE TABLE accounts.mine (x int)",
    ],
)
def test_accounts_role_cannot_do_anything_else(
    connection: Connection, acting_as: ActingAs, statement: str
) -> None:
    with acting_as(ACCOUNTS), pytest.raises(errors.InsufficientPrivilege):
        connection.execute(statement)


@pytest.mark.parametrize("ends", ["169 hours", "1000 years"])
def test_serving_role_cannot_begin_a_session_longer_than_the_owner_allows(
    connection: Connection, acting_as: ActingAs, ends: str
) -> None:
    login = anna(connection)
    with acting_as(ACCOUNTS), pytest.raises(errors.CheckViolation, match="SESSION_HOURS"):
        connection.execute(
            "INSERT INTO accounts.sessions (user_id, secret_hash, expires_at) "
            "VALUES (%s, %s, now() + %s::interval)",
            (login.user_id, FIRST, ends),
        )


@pytest.mark.parametrize(
    "statement",
    [
        """
        INSERT INTO accounts.sessions (user_id, secret_hash, expires_at, created_at)
        SELECT id, sha256('x'), now() + interval '1 hour', now() + interval '1 year'
        FROM accounts.users
        """,
        """
        INSERT INTO accounts.sessions (user_id, secret_hash, expires_at, id)
        OVERRIDING SYSTEM VALUE
        SELECT id, sha256('x'), now() + interval '1 hour', 1000 FROM accounts.users
        """,
        """
        INSERT INTO accounts.watched_symbols (user_id, symbol, added_at)
        SELECT id, 'BTCUSDT', now() + interval '1 year' FROM accounts.users
        """,
    ],
)
def test_serving_role_decides_neither_when_a_row_began_nor_its_id(
    connection: Connection, database_url: str, acting_as: ActingAs, statement: str
) -> None:
    anna(connection)
    # As earlier versions granted it: the migration takes it back.
    connection.execute(
        "GRANT INSERT ON accounts.sessions, accounts.watched_symbols TO candelabra_accounts"
    )
    migrate(database_url)
    with acting_as(ACCOUNTS), pytest.raises(errors.InsufficientPrivilege):
        connection.execute(statement)


def test_longer_session_is_shortened_to_the_hours_of_the_last_migration(
    connection: Connection, database_url: str, acting_as: ActingAs
) -> None:
    login = anna(connection)
    hour_us = 3_600_000_000
    for hours, asked, got in ((None, 500, 168), (2, 500, 2), (500, 400, 400), (None, 501, 500)):
        migrate(database_url, session_hours=hours)
        with acting_as(ACCOUNTS):
            accounts.begin_session(connection, login, FIRST, lifetime_s=asked * 3_600)
            (session,) = accounts.sessions_of(connection, login.user_id)
            accounts.end_session(connection, login.user_id, session.id)
        assert session.expires_us - session.created_us == got * hour_us
