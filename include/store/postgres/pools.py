"""Open connections to PostgreSQL, and translate its errors.

Every session runs in UTC. Messages name host, port and database, never the password. A URL may name
several hosts, ``postgresql://user@one:5432,two:5432/candelabra``: each new connection goes to the
host that accepts writes.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import psycopg
from psycopg import conninfo, errors
from psycopg.rows import Row

from include.errors import PermanentError, TransientError

CONNECT_TIMEOUT_S = 10
"""Time to wait for the server's answer to a new connection."""

GIVE_UP_S = 1.0
"""Time for a server to cancel a statement; a server that takes longer hangs."""

UNANSWERED_MS = 30_000
"""A server that acknowledges nothing for this long is gone: its machine or the network has failed.
"""

SCHEMES = ("postgresql", "postgres")

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]@]*)(:\d+)?")

AnyConnection = psycopg.Connection[Any] | psycopg.AsyncConnection[Any]

_WRONG_ADDRESS = (
    errors.InvalidPassword,
    errors.InvalidAuthorizationSpecification,
    errors.InvalidCatalogName,
)
# A refused login fails before libpq stores a SQLSTATE.
_WRONG_ADDRESS_TEXTS = (
    "password authentication failed",
    "no password supplied",
    "does not exist",
    "no pg_hba.conf entry",
    "permission denied for database",
    "is not permitted to log in",
    "authentication method",
)

_WORTH_A_RETRY = (
    errors.OperationalError,  # away, shutting down, out of connections or disk, lock timeouts
    errors.InterfaceError,  # the connection is closed
    errors.SerializationFailure,
    errors.DeadlockDetected,
    errors.LockNotAvailable,
    errors.QueryCanceled,
    errors.ReadOnlySqlTransaction,  # no longer the primary
    errors.IdleInTransactionSessionTimeout,
    errors.TransactionTimeout,
)


def redact(url: str) -> str:
    """Return the URL without its password and parameters, for logs and messages."""
    try:
        parts = urlsplit(url)
        user = quote(unquote(parts.username)) if parts.username else ""
        hosts = parts.netloc.rpartition("@")[2]
    except ValueError:
        return "<malformed database URL>"
    if parts.scheme not in SCHEMES or not all(map(_HOST.fullmatch, hosts.split(","))):
        return "<malformed database URL>"
    login = f"{user}@" if user else ""
    return f"postgresql://{login}{hosts}{parts.path}"


def connection_arguments(
    url: str, *, application_name: str, timeout_s: float = CONNECT_TIMEOUT_S
) -> dict[str, Any]:
    """Return checked arguments for ``psycopg.connect`` and its asynchronous counterpart.

    Raises:
        PermanentError: the URL is not a PostgreSQL URL.
    """
    wanted = "expected postgresql://user:password@host:port/database"
    if not url.startswith(tuple(f"{scheme}://" for scheme in SCHEMES)):
        raise PermanentError(f"{redact(url)} is not a PostgreSQL URL; {wanted}")
    try:
        arguments = conninfo.conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        # libpq quotes the offending part, which may be the password, so omit its message.
        raise PermanentError(f"{redact(url)} cannot be read; {wanted}") from None
    arguments.update(
        application_name=application_name,
        # libpq uses whole seconds and reads 1 as 2
        connect_timeout=max(2, round(timeout_s)),
        options=f"{arguments.get('options') or ''} -c TimeZone=UTC".strip(),
        # detects a dead server within about half a minute instead of two hours
        keepalives_idle=arguments.get("keepalives_idle", 15),
        keepalives_interval=arguments.get("keepalives_interval", 5),
        keepalives_count=arguments.get("keepalives_count", 3),
        tcp_user_timeout=arguments.get("tcp_user_timeout", UNANSWERED_MS),
    )
    if "," in str(arguments.get("host", "")):
        arguments.setdefault("target_session_attrs", "read-write")
    return arguments


def connect(
    url: str,
    *,
    application_name: str,
    timeout_s: float = CONNECT_TIMEOUT_S,
    autocommit: bool = True,
) -> psycopg.Connection[tuple[Any, ...]]:
    """Open a connection whose session is in UTC.

    Args:
        url: ``postgresql://user:password@host:port/database``.
        application_name: shown in ``pg_stat_activity``.
        timeout_s: seconds to wait for the server.
        autocommit: True leaves transactions to ``connection.transaction()``.

    Raises:
        TransientError: the server is away.
        PermanentError: the URL is malformed, or login or database are refused.
    """
    arguments = connection_arguments(url, application_name=application_name, timeout_s=timeout_s)
    with translated(url):
        return psycopg.connect(autocommit=autocommit, **arguments)


class HurriedConnection(psycopg.AsyncConnection[Row]):
    """A connection whose statements can be abandoned even if the server hangs.

    The library waits five seconds for the server to cancel, and five more for the result; a process
    that must stop within ten seconds has no time for that.
    """

    async def _try_cancel(self, *, timeout: float = GIVE_UP_S) -> None:  # noqa: ASYNC109 - theirs
        try:
            await self.cancel_safe(timeout=min(timeout, GIVE_UP_S))
        except psycopg.Error:
            with socket.socket(fileno=os.dup(self.fileno())) as own, suppress(OSError):
                own.shutdown(socket.SHUT_RDWR)  # waiters see the end immediately


async def connect_async(
    url: str,
    *,
    application_name: str,
    timeout_s: float = CONNECT_TIMEOUT_S,
    autocommit: bool = True,
) -> psycopg.AsyncConnection[tuple[Any, ...]]:
    """Open an asynchronous connection like ``connect``."""
    arguments = connection_arguments(url, application_name=application_name, timeout_s=timeout_s)
    with translated(url):
        return await HurriedConnection.connect(autocommit=autocommit, **arguments)


async def ping_async(connection: psycopg.AsyncConnection[Any]) -> None:
    """Check that the server answers.

    Raises:
        TransientError: it is away.
    """
    with translated(connection):
        await connection.execute("SELECT 1")


SERVER_STARTED = "SELECT pg_postmaster_start_time()"


def server_started(connection: psycopg.Connection[Any]) -> datetime | None:
    """Return when the server was started; another time means a restart or another server.

    Raises:
        TransientError: it is away.
    """
    with translated(connection):
        (started,) = connection.execute(SERVER_STARTED).fetchone() or (None,)
    return started


async def server_started_async(connection: psycopg.AsyncConnection[Any]) -> datetime | None:
    """Like ``server_started``."""
    with translated(connection):
        cursor = await connection.execute(SERVER_STARTED)
        (started,) = await cursor.fetchone() or (None,)
    return started


def is_about_the_schema(error: PermanentError) -> bool:
    """Whether PostgreSQL refused the statement itself, rather than a value in it.

    Causes are a missing table, missing privileges or a server in recovery. An operator fixes them,
    for example by a restore or a migration.
    """
    cause = error.__cause__
    return isinstance(cause, psycopg.Error) and not isinstance(
        cause, (errors.DataError, errors.IntegrityError)
    )


@contextmanager
def translated(where: str | AnyConnection) -> Iterator[None]:
    """Turn errors of the driver into ``TransientError`` and ``PermanentError``.

    Args:
        where: the URL or the connection that the message shall name.
    """
    # Read before: a broken connection no longer knows its server.
    place = redact(where) if isinstance(where, str) else _place(where)
    try:
        yield
    except psycopg.Error as error:
        raise _translation(error, place) from error


def is_of_database(error: BaseException) -> bool:
    """Whether PostgreSQL is the cause, and not the data: away, slow, or without a privilege.

    Such a failure does not count as an attempt: the work is retried without limit.
    """
    cause = error.__cause__
    return isinstance(cause, psycopg.Error) and not isinstance(
        cause, (errors.DataError, errors.IntegrityError)
    )


def _translation(error: psycopg.Error, place: str) -> TransientError | PermanentError:
    # Without the context, which repeats the whole statement.
    parts = (error.diag.message_primary, error.diag.message_detail)
    text = " ".join((". ".join(filter(None, parts)) or str(error)).split())
    refused = error.sqlstate is None and any(part in text for part in _WRONG_ADDRESS_TEXTS)
    if isinstance(error, errors.InvalidCatalogName):
        return PermanentError(
            f"PostgreSQL at {place}: {text}; create it, then `candelabra migrate`"
        )
    if isinstance(error, _WRONG_ADDRESS) or refused:
        return PermanentError(f"PostgreSQL refuses the login to {place}: {text}")
    if isinstance(error, errors.OperationalError) and error.sqlstate is None:
        # The server did not answer; the text is libpq's reason.
        return TransientError(f"cannot reach PostgreSQL at {_address(place)}: {text}")
    if isinstance(error, _WORTH_A_RETRY):
        return TransientError(f"PostgreSQL at {place} could not do it now: {text}")
    return PermanentError(f"PostgreSQL at {place} rejected the statement: {text}")


def _address(place: str) -> str:
    """Return ``host:port/database`` of a URL without its password; other texts unchanged."""
    return place.removeprefix("postgresql://").rpartition("@")[2]


def _place(connection: AnyConnection) -> str:
    if connection.closed:
        return "a closed connection"
    known = connection.info
    return f"postgresql://{known.user}@{known.host}:{known.port}/{known.dbname}"
