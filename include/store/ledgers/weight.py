"""The request weight budget of a host, shared by all processes through ``ops.acquire_weight``."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from psycopg.pq import TransactionStatus

from include.errors import PermanentError
from include.store.candles.merging import Connection
from include.store.postgres.pools import translated

DEFAULT_WEIGHT_LIMIT = 4500
"""Weight per minute: three quarters of spot's 6,000; the rest is used while PostgreSQL is away."""


@dataclass(frozen=True, slots=True)
class WeightGrant:
    """The budget's answer to a request.

    Attributes:
        granted: whether the request may be sent.
        used: weight used in the current clock minute.
        wait_ms: how long to wait before trying again; 0 if granted.
        window: the minute of the weight, by the database's clock.
    """

    granted: bool
    used: int
    wait_ms: int
    window: datetime | None = None


def acquire_weight(
    connection: Connection, host: str, weight: int, *, weight_limit: int = DEFAULT_WEIGHT_LIMIT
) -> WeightGrant:
    """Take request weight from the host's budget of this clock minute (UTC).

    Args:
        connection: not in a transaction, whose end all other requests would wait for.
        weight_limit: weight a minute that all processes together may use.

    Raises:
        TransientError: the database is away.
        PermanentError: the connection is in a transaction, or the weight exceeds the limit.
    """
    _refuse_transaction(connection)
    with translated(connection):
        row = connection.execute(
            "SELECT granted, used, wait_ms, granted_window FROM ops.acquire_weight(%s, %s, %s)",
            (host, weight, weight_limit),
        ).fetchone()
    if row is None:
        raise PermanentError("ops.acquire_weight() returned nothing: run `candelabra migrate`")
    return WeightGrant(*row)


def report_weight(
    connection: Connection,
    host: str,
    *,
    used: int,
    retry_after_ms: int | None = None,
    window: datetime | None = None,
) -> None:
    """Report the exchange's answer to the budget.

    Args:
        used: the used-weight header of an answer; raises the budget's own figure.
        retry_after_ms: after 429 or 418, how long all requests must pause.
        window: of the request's grant; None: the current one. If it is past, or ahead of a clock
            that was set back, ``used`` does not concern this minute.
    """
    _refuse_transaction(connection)
    with translated(connection):
        connection.execute(
            "SELECT ops.report_weight(%s, %s, %s, %s)", (host, used, retry_after_ms, window)
        )


def _refuse_transaction(connection: Connection) -> None:
    if not connection.autocommit or connection.info.transaction_status not in (
        TransactionStatus.IDLE,
        TransactionStatus.UNKNOWN,  # the connection is broken; the next statement will raise
    ):
        raise PermanentError(
            "the weight budget needs an autocommit connection outside a transaction: "
            "its row stays locked until the transaction ends"
        )
