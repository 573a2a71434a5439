"""A PostgreSQL session shared by Great Expectations and our code, with its temporary tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, LiteralString, Self

import great_expectations as gx
import psycopg
from great_expectations.data_context.types.base import ProgressBarsConfig
from psycopg import sql
from sqlalchemy.exc import DBAPIError

from include.store.postgres.pools import redact, translated

STATEMENT_TIMEOUT_S = 600
"""Maximum time of one rule."""


class CheckSession:
    """A Great Expectations context over one connection.

    The pool has one connection, so that every rule sees the temporary tables; each rule returns it
    before the next one starts.
    """

    def __init__(self, database_url: str) -> None:
        self.where = redact(database_url)
        # Ephemeral: on disk, the context would keep the URL with its password.
        self.context = gx.get_context(mode="ephemeral")
        self.context.enable_analytics(False)
        self.context.variables.progress_bars = ProgressBarsConfig(globally=False)
        # The saved configuration is never read, and writing it as YAML takes 40 % of a run.
        self.context.variables.save = _save_nothing  # type: ignore[method-assign]
        self.source = self.context.data_sources.add_postgres(
            "candelabra",
            connection_string="postgresql+psycopg://" + database_url.split("://", 1)[1],
            kwargs={  # type: ignore[call-arg]  # of SQLAlchemy's engine; the stub leaves it out
                "pool_size": 1,
                "max_overflow": 0,
                "pool_timeout": 10,
                "connect_args": {
                    "application_name": "candelabra-quality",
                    "options": "-c TimeZone=UTC -c jit=off -c max_parallel_workers_per_gather=0"
                    f" -c statement_timeout={STATEMENT_TIMEOUT_S}s",
                },
            },
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.source.get_execution_engine().close()

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Connection[Any]]:
        """Yield the connection, in a separate transaction.

        Raises:
            TransientError: the database is away, or a statement took too long.
        """
        with translated(self.where), self._held() as held:
            connection: psycopg.Connection[Any] = held.connection.driver_connection
            with connection.transaction():
                yield connection

    def _held(self) -> Any:
        """Return the pool's connection; raise the driver's own error if there is none."""
        try:
            return self.source.get_execution_engine().engine.connect()
        except DBAPIError as error:
            raise error.orig if error.orig is not None else error from error

    def execute(
        self, query: LiteralString, values: Mapping[str, sql.Composable] | None = None
    ) -> list[tuple[Any, ...]]:
        """Run one statement in a separate transaction; return its rows, if any.

        Args:
            values: values for the placeholders in braces.
        """
        with self.transaction() as connection:
            cursor = connection.execute(composed(query, values or {}))
            return cursor.fetchall() if cursor.description else []


def _save_nothing() -> None: ...


def composed(query: LiteralString, values: Mapping[str, sql.Composable]) -> sql.Composed:
    """Return the statement with its placeholders filled."""
    return sql.SQL(query).format(**values)
