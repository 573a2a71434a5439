"""Accounts: users, sessions and tokens in the schema ``accounts``."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from include.domain.accounts import AuthMethod, Identity, Role
from include.domain.timeframes import to_us
from include.errors import RejectedInputError
from include.store.candles.merging import Connection
from include.store.postgres.pools import translated

MAX_SESSIONS = 50
"""Maximum sessions of a user; a further login ends the oldest."""

_ADD_USER = """
INSERT INTO accounts.users (name, password_hash, role)
VALUES (%(name)s, %(password_hash)s, %(role)s)
ON CONFLICT (name) DO NOTHING
RETURNING id
"""

_LIST_USERS = """
SELECT
    u.name, u.role, u.created_at, u.disabled_at,
    (SELECT count(*) FROM accounts.sessions AS s WHERE s.user_id = u.id AND s.expires_at > now()),
    (
        SELECT count(*) FROM accounts.tokens AS t
        WHERE t.user_id = u.id AND (t.expires_at IS NULL OR t.expires_at > now())
    ),
    (SELECT count(*) FROM accounts.watched_symbols AS w WHERE w.user_id = u.id)
FROM accounts.users AS u
ORDER BY u.name
"""

# One statement: an account disabled, or given another password, in the meantime gets no session.
_BEGIN_SESSION = """
INSERT INTO accounts.sessions (user_id, secret_hash, expires_at)
SELECT
    u.id,
    %(secret_hash)s,
    now() + least(make_interval(secs => %(lifetime_s)s), accounts.longest_session())
FROM accounts.users AS u
WHERE
    u.id = %(user_id)s AND u.password_hash = %(password_hash)s AND u.disabled_at IS NULL
RETURNING id, expires_at
"""

_PRUNE_SESSIONS = """
DELETE FROM accounts.sessions
WHERE
    expires_at <= now()
    OR id IN (
        SELECT id FROM accounts.sessions
        WHERE user_id = %(user_id)s
        ORDER BY id DESC OFFSET %(most)s
    )
"""

_IDENTITIES = """
SELECT s.secret_hash, u.id, u.name, u.role, 'session', s.id, s.expires_at
FROM accounts.sessions AS s
INNER JOIN accounts.users AS u ON s.user_id = u.id
WHERE s.secret_hash = ANY (%(hashes)s) AND s.expires_at > now() AND u.disabled_at IS NULL
UNION ALL
SELECT t.secret_hash, u.id, u.name, u.role, 'token', t.id, t.expires_at
FROM accounts.tokens AS t
INNER JOIN accounts.users AS u ON t.user_id = u.id
WHERE
    t.secret_hash = ANY (%(hashes)s) AND (t.expires_at IS NULL OR t.expires_at > now())
    AND u.disabled_at IS NULL
"""

_KEEP_KEY_OF_PROGRAM = """
INSERT INTO accounts.tokens (user_id, label, secret_hash, expires_at)
VALUES (%(user_id)s, %(label)s, %(secret_hash)s, now() + make_interval(days => %(days)s))
ON CONFLICT (user_id, label) DO NOTHING
RETURNING id
"""

_LIST_TOKENS = """
SELECT u.name, t.label, t.created_at, t.expires_at
FROM accounts.tokens AS t
INNER JOIN accounts.users AS u ON t.user_id = u.id
WHERE %(name)s::text IS NULL OR u.name = %(name)s
ORDER BY u.name, t.label
"""


@dataclass(frozen=True, slots=True)
class User:
    """An account, with counts of its sessions, tokens and watched symbols; times in µs."""

    name: str
    role: Role
    created_us: int
    disabled_us: int | None
    sessions: int
    tokens: int
    watched: int


@dataclass(frozen=True, slots=True)
class Password:
    """Stored values that a login is checked against."""

    user_id: int
    name: str
    role: Role
    password_hash: str
    is_disabled: bool


@dataclass(frozen=True, slots=True)
class Token:
    """A token, without its secret. Times in µs since 1970."""

    user: str
    label: str
    created_us: int
    expires_us: int | None


@dataclass(frozen=True, slots=True)
class LoginSession:
    """A valid session. Times in µs since 1970."""

    id: int
    created_us: int
    expires_us: int


# --- for the operator, as the owner


def add_user(connection: Connection, name: str, password_hash: str, role: Role) -> None:
    """Create an account.

    Raises:
        RejectedInputError: an account with this name exists.
    """
    arguments = {"name": name, "password_hash": password_hash, "role": role.value}
    with translated(connection):
        if connection.execute(_ADD_USER, arguments).fetchone() is None:
            raise RejectedInputError(
                f"there is an account {name} already; `candelabra user passwd {name}` gives it "
                "another password"
            )


def list_users(connection: Connection) -> list[User]:
    """Return all accounts, by name."""
    with translated(connection):
        return [
            User(name, Role(role), to_us(created), None if gone is None else to_us(gone), *counts)
            for name, role, created, gone, *counts in connection.execute(_LIST_USERS)
        ]


def set_password(connection: Connection, name: str, password_hash: str) -> int:
    """Set an account's password; return the number of sessions ended. Tokens stay valid.

    Raises:
        RejectedInputError: there is no such account.
    """
    with translated(connection), connection.transaction():
        user_id = _user_id(connection, name)
        connection.execute(
            "UPDATE accounts.users SET password_hash = %s, password_changed_at = now() "
            "WHERE id = %s",
            (password_hash, user_id),
        )
        return _end_sessions(connection, user_id)


def set_role(connection: Connection, name: str, role: Role) -> None:
    """Set an account's role.

    Raises:
        RejectedInputError: there is no such account.
    """
    with translated(connection), connection.transaction():
        connection.execute(
            "UPDATE accounts.users SET role = %s WHERE id = %s",
            (role.value, _user_id(connection, name)),
        )


def set_disabled(connection: Connection, name: str, *, is_disabled: bool) -> None:
    """Disable or enable an account; its sessions end, its tokens and watchlist are suspended.

    Raises:
        RejectedInputError: there is no such account.
    """
    with translated(connection), connection.transaction():
        user_id = _user_id(connection, name)
        connection.execute(
            "UPDATE accounts.users SET disabled_at = CASE WHEN %s THEN now() END WHERE id = %s",
            (is_disabled, user_id),
        )
        if is_disabled:
            _end_sessions(connection, user_id)


def remove_user(connection: Connection, name: str) -> None:
    """Delete an account and everything that belongs to it.

    Raises:
        RejectedInputError: there is no such account.
    """
    with translated(connection), connection.transaction():
        connection.execute(
            "DELETE FROM accounts.users WHERE id = %s", (_user_id(connection, name),)
        )


def add_token(
    connection: Connection, name: str, label: str, secret_hash: bytes, *, days: int | None
) -> None:
    """Store an API token.

    Args:
        days: until it expires; None: never.

    Raises:
        RejectedInputError: there is no such account, or it has a token with this label.
    """
    with translated(connection), connection.transaction():
        arguments = {
            "user_id": _user_id(connection, name),
            "label": label,
            "secret_hash": secret_hash,
            "days": days,
        }
        if connection.execute(_KEEP_KEY_OF_PROGRAM, arguments).fetchone() is None:
            raise RejectedInputError(
                f"{name} has a token {label!r} already; choose another label, or revoke the token: "
                f"candelabra user token revoke {name} {label}"
            )


def list_tokens(connection: Connection, name: str | None = None) -> list[Token]:
    """Return the tokens of all accounts, or of one.

    Raises:
        RejectedInputError: there is no such account.
    """
    with translated(connection):
        if name is not None:
            _user_id(connection, name)
        return [
            Token(user, label, to_us(created), None if expires is None else to_us(expires))
            for user, label, created, expires in connection.execute(_LIST_TOKENS, {"name": name})
        ]


def revoke_token(connection: Connection, name: str, label: str) -> None:
    """Revoke a token immediately.

    Raises:
        RejectedInputError: there is no such account or token.
    """
    with translated(connection), connection.transaction():
        done = connection.execute(
            "DELETE FROM accounts.tokens WHERE user_id = %s AND label = %s",
            (_user_id(connection, name), label),
        )
        if not done.rowcount:
            raise RejectedInputError(f"{name} has no token {label!r}; see `user token list {name}`")


# --- for servers of readers


def can_anyone_log_in(connection: Connection) -> bool:
    """Return whether an enabled account exists."""
    with translated(connection):
        row = connection.execute(
            "SELECT EXISTS (SELECT FROM accounts.users WHERE disabled_at IS NULL)"
        ).fetchone()
    return row == (True,)


def password_of(connection: Connection, name: str) -> Password | None:
    """Return what a login by this name is checked against; None if there is no such account."""
    with translated(connection):
        row = connection.execute(
            "SELECT id, name, role, password_hash, disabled_at IS NOT NULL "
            "FROM accounts.users WHERE name = %s",
            (name,),
        ).fetchone()
    if row is None:
        return None
    user_id, name, role, password_hash, is_disabled = row
    return Password(user_id, name, Role(role), password_hash, is_disabled)


def begin_session(
    connection: Connection, login: Password, secret_hash: bytes, *, lifetime_s: float
) -> Identity | None:
    """Create a session; remove expired sessions, and the user's oldest beyond ``MAX_SESSIONS``.

    Args:
        lifetime_s: the session lasts as long, but no longer than the owner of the database allows.

    Returns:
        None if the account was disabled or its password changed in the meantime.
    """
    arguments = {
        "user_id": login.user_id,
        "password_hash": login.password_hash,
        "secret_hash": secret_hash,
        "lifetime_s": lifetime_s,
    }
    with translated(connection), connection.transaction():
        row = connection.execute(_BEGIN_SESSION, arguments).fetchone()
        if row is None:
            return None
        connection.execute(_PRUNE_SESSIONS, {"user_id": login.user_id, "most": MAX_SESSIONS})
    session_id, expires = row
    return Identity(
        login.user_id, login.name, login.role, AuthMethod.SESSION, session_id, to_us(expires)
    )


def identities(connection: Connection, hashes: Collection[bytes]) -> dict[bytes, Identity]:
    """Return the identities of those secret hashes that are valid now."""
    with translated(connection):
        rows = connection.execute(_IDENTITIES, {"hashes": list(hashes)}).fetchall()
    return {bytes(secret_hash): _identity(*row) for secret_hash, *row in rows}


def sessions_of(connection: Connection, user_id: int) -> list[LoginSession]:
    """Return a user's sessions that have not expired, newest first."""
    with translated(connection):
        return [
            LoginSession(session_id, to_us(created), to_us(expires))
            for session_id, created, expires in connection.execute(
                "SELECT id, created_at, expires_at FROM accounts.sessions "
                "WHERE user_id = %s AND expires_at > now() ORDER BY id DESC",
                (user_id,),
            )
        ]


def end_session(connection: Connection, user_id: int, session_id: int) -> bool:
    """End a session of a user; return whether it existed."""
    with translated(connection):
        done = connection.execute(
            "DELETE FROM accounts.sessions WHERE user_id = %s AND id = %s", (user_id, session_id)
        )
        return done.rowcount > 0


def end_sessions(connection: Connection, name: str) -> int:
    """End all sessions of an account; return their number.

    Raises:
        RejectedInputError: there is no such account.
    """
    with translated(connection):
        return _end_sessions(connection, _user_id(connection, name))


# --- inside


def _user_id(connection: Connection, name: str) -> int:
    row = connection.execute("SELECT id FROM accounts.users WHERE name = %s", (name,)).fetchone()
    if row is None:
        raise RejectedInputError(f"there is no account {name!r}; `candelabra user list` names all")
    return int(row[0])


def _end_sessions(connection: Connection, user_id: int) -> int:
    return connection.execute(
        "DELETE FROM accounts.sessions WHERE user_id = %s", (user_id,)
    ).rowcount


def _identity(user_id: int, name: str, role: str, kind: str, key_id: int, expires: Any) -> Identity:
    expires_us = None if expires is None else to_us(expires)
    return Identity(user_id, name, Role(role), AuthMethod(kind), key_id, expires_us)
