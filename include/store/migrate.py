"""Migrate a database to the schema of this program.

One transaction, in this order: roles and schemas, functions, revisions (tables, indexes, triggers),
views, grants, comments. Everything but the revisions is applied on every migration, from the single
definition in ``migrations/sql/repeatable/``. Functions come before the tables because constraints
and triggers use them; their bodies are not checked until they run.

- A failed migration changes nothing. A concurrent one waits for a lock.
- A function whose result or argument names change needs ``DROP FUNCTION IF EXISTS`` with the old
  arguments above its definition: ``CREATE OR REPLACE`` cannot change them, and with other argument
      types it would create a second function.
- A view is replaced only if its definition differs, because replacing it locks readers out. A
  revision must drop a view whose columns change their names or types.
- If the server does not let the owner create roles, all programs use the owner's login.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import psycopg
import sqlalchemy
import structlog
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from psycopg import sql

from include.errors import PermanentError
from include.store.migrations.scripts import script_names, script_text
from include.store.postgres.pools import connect, redact, translated

log = structlog.get_logger(__name__)

Owner = psycopg.Connection[Any]

STREAMER = "candelabra_streamer"
JOBS = "candelabra_jobs"
DBT = "candelabra_dbt"
READER = "candelabra_reader"
SERVING = "candelabra_serving"
ACCOUNTS = "candelabra_accounts"
FIRST_ROLES = (STREAMER, JOBS, DBT, READER)
ROLES = (*FIRST_ROLES, SERVING, ACCOUNTS)

MIGRATIONS = Path(__file__).parent / "migrations"

LOCK_KEY = 0x63616E64656C6162
"""Advisory lock of the first migration: "candelab" in ASCII. Later ones lock a table."""

OLDEST_SERVER = 150_000
"""PostgreSQL 15 as ``server_version_num``: older versions lack NULLS NOT DISTINCT."""

RESTRICTED = ("pg_advisory_lock", "lo_create", "pg_logical_emit_message", "pg_export_snapshot")
"""One function of each kind that ``administrator.sql`` takes from PUBLIC."""

NEWEST_OF_BASELINE = "ops.candle_partitions"
"""A table that baselines of earlier development versions lack."""

LOCK_TIMEOUT_S = 60
"""Maximum wait for another migration or a long transaction."""


def migrate(
    database_url: str,
    *,
    role_urls: Mapping[str, str] | None = None,
    session_hours: int | None = None,
) -> None:
    """Create or update schemas, tables, functions, roles and grants; safe to repeat.

    Args:
        database_url: URL of the owner: a superuser, or the database's owner with CREATEROLE.
        role_urls: for roles in ``ROLES`` the URL its program connects with. Where the URL's
            user is the role itself, the role gets the URL's password; another user (which must
            exist) is granted the role.
        session_hours: longest session that serving processes can begin; None: as it is.

    Raises:
        TransientError: the server is away, or another migration holds the lock for a minute.
        PermanentError: the URL is wrong, the server is older than PostgreSQL 15, the owner lacks
            a right, or another version of this program made the schema; the message says which.
    """
    engine = sqlalchemy.create_engine(
        "postgresql+psycopg://",
        creator=lambda: connect(
            database_url, application_name="candelabra-migrate", autocommit=False
        ),
        poolclass=sqlalchemy.NullPool,
    )
    with translated(database_url), _unwrapped(), engine.begin() as connection:
        owner = _driver_of(connection)
        check_server_version(owner.info.server_version, where=redact(database_url))
        check_encoding(owner.info.parameter_status("server_encoding"), where=redact(database_url))
        _prepare(owner)
        _refuse_unknown_revision(owner, where=redact(database_url))
        _replace_functions(owner)
        _upgrade(connection)
        _replace_views(owner)
        if _has_roles(owner, FIRST_ROLES):
            owner.execute(script_text("repeatable/grants.sql"))
            _limit_readers(owner, where=redact(database_url))
        else:
            owner.execute(script_text("repeatable/schemas_without_roles.sql"))
            log.warning("roles_not_made", database=redact(database_url))
        owner.execute(script_text("repeatable/comments.sql"))
        for role, url in (role_urls or {}).items():
            _admit(owner, role, url)
        if session_hours is not None:
            owner.execute("UPDATE accounts.limits SET session_hours = %s", (session_hours,))
    log.info("database_migrated", database=redact(database_url))


def check_server_version(version: int, *, where: str) -> None:
    """Refuse a server without the features that the schema needs.

    Args:
        version: ``server_version_num``, such as 180001 for 18.1.
        where: the server, for the message; without its password.

    Raises:
        PermanentError: it is older than PostgreSQL 15.
    """
    if version < OLDEST_SERVER:
        raise PermanentError(
            f"{where} is PostgreSQL {version // 10_000}; Candelabra needs 15 or newer"
        )


def check_encoding(encoding: str | None, *, where: str) -> None:
    """Refuse a database that cannot store all names of symbols.

    Args:
        encoding: ``server_encoding``, such as UTF8.
        where: the database, for the message; without its password.

    Raises:
        PermanentError: its encoding is not UTF-8.
    """
    if encoding != "UTF8":
        raise PermanentError(
            f"{where} has the encoding {encoding}; Candelabra needs UTF8: make a database from "
            "template0 with this encoding"
        )


def _prepare(owner: Owner) -> None:
    """Acquire the lock, and create the roles and schemas."""
    owner.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(sql.Literal(f"{LOCK_TIMEOUT_S}s")))
    # Only the owner can lock the table in this mode: no reader delays a migration. The first
    # migration has no table yet, and no readers.
    if not _lock_revision(owner):
        owner.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK_KEY,))
        _lock_revision(owner)  # the migration that was waited for has created it
    owner.execute(script_text("repeatable/roles.sql"))
    owner.execute(script_text("repeatable/schemas.sql"))


def _lock_revision(owner: Owner) -> bool:
    """Lock the schema's revision against other migrations; return whether there is one."""
    if owner.execute("SELECT to_regclass('ops.alembic_version') IS NULL").fetchone() == (True,):
        return False
    owner.execute("LOCK TABLE ops.alembic_version IN EXCLUSIVE MODE")
    return True


def _limit_readers(owner: Owner, *, where: str) -> None:
    """Set the limits of readers, and report what only a superuser may set."""
    is_superuser = "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"
    if owner.execute(is_superuser).fetchone() == (True,):
        owner.execute(script_text("repeatable/administrator.sql"))
    owner.execute(script_text("repeatable/limits.sql"))
    row = owner.execute(
        "SELECT bool_or(has_function_privilege(%s, oid, 'EXECUTE')) FROM pg_proc "
        "WHERE pronamespace = 'pg_catalog'::regnamespace AND proname = ANY (%s)",
        (READER, list(RESTRICTED)),
    ).fetchone()
    if row == (True,):
        log.warning("readers_not_restricted", database=where)


def _has_roles(owner: Owner, roles: Collection[str]) -> bool:
    """Whether these roles exist.

    The first four are created together; the others came later.
    """
    found = owner.execute(
        "SELECT count(*) FROM pg_roles WHERE rolname = ANY (%s)", (list(roles),)
    ).fetchone()
    return found == (len(roles),)


def alembic_config() -> Config:
    """Build the configuration that alembic needs to find the revisions."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return config


def _refuse_unknown_revision(owner: Owner, *, where: str) -> None:
    if owner.execute("SELECT to_regclass('ops.alembic_version') IS NULL").fetchone() == (True,):
        return
    row = owner.execute("SELECT version_num FROM ops.alembic_version").fetchone()
    known = {
        each.revision for each in ScriptDirectory.from_config(alembic_config()).walk_revisions()
    }
    if row is not None and row[0] not in known:
        raise PermanentError(
            f"{where} has schema revision {row[0]}, which this program does not know (it knows "
            f"{', '.join(sorted(known))}): another version of Candelabra made it. Use that "
            "version, or migrate an empty database and load the data again"
        )
    if owner.execute("SELECT to_regclass(%s) IS NULL", (NEWEST_OF_BASELINE,)).fetchone() == (True,):
        raise PermanentError(
            f"{where} has the schema of a development version before the first release, which "
            "cannot be upgraded: migrate an empty database and load the data again"
        )


def _replace_functions(owner: Owner) -> None:
    """Create or replace every function; tables that their bodies name may not exist yet."""
    owner.execute("SET LOCAL check_function_bodies = off")
    for name in script_names("repeatable/functions"):
        owner.execute(script_text(name))
    owner.execute("SET LOCAL check_function_bodies = on")


def _upgrade(connection: sqlalchemy.Connection) -> None:
    config = alembic_config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _replace_views(owner: Owner) -> None:
    """Create each view; replace it if it differs from the query in its file."""
    probe = sql.Identifier("pg_temp", "wanted")
    for name in script_names("repeatable/views"):
        query = sql.SQL(script_text(name).decode())
        view = sql.Identifier(*Path(name).stem.split("."))
        owner.execute(sql.SQL("CREATE VIEW {} AS {}").format(probe, query))
        row = owner.execute(
            "SELECT pg_get_viewdef('pg_temp.wanted'::regclass) = pg_get_viewdef(to_regclass(%s))",
            (view.as_string(owner),),
        ).fetchone()
        owner.execute(sql.SQL("DROP VIEW {}").format(probe))
        if row != (True,):
            owner.execute(sql.SQL("CREATE OR REPLACE VIEW {} AS {}").format(view, query))


def _admit(owner: Owner, role: str, url: str) -> None:
    """Allow the user of this URL to act as the role."""
    if role not in ROLES:
        raise PermanentError(f"{role} is not a role of Candelabra; those are {', '.join(ROLES)}")
    parts = urlsplit(url)
    user = unquote(parts.username or "")
    if not user:
        raise PermanentError(f"the URL of {role} ({redact(url)}) names no user")
    if owner.execute("SELECT current_user = %s", (user,)).fetchone() == (True,):
        return  # the owner has all privileges already
    if not _has_roles(owner, {*FIRST_ROLES, role}):
        raise PermanentError(
            f"there is no role {role}, and the owner may not create it: let an administrator "
            "create the roles (docs/operations.md), or give the owner's login in every URL"
        )
    if role == SERVING and owner.execute(
        "SELECT pg_has_role(%s, %s, 'USAGE')", (SERVING, READER)
    ).fetchone() != (True,):
        raise PermanentError(
            f"{SERVING} may not read, and the owner may not grant it: let an administrator run "
            f"GRANT {READER} TO {SERVING}"
        )
    if user == role:
        if parts.password:
            # Hashed here, so that the password cannot appear in a server log.
            secret = owner.pgconn.encrypt_password(
                unquote(parts.password).encode(), user.encode(), b"scram-sha-256"
            ).decode()
            owner.execute(
                sql.SQL("ALTER ROLE {} PASSWORD {}").format(
                    sql.Identifier(role), sql.Literal(secret)
                )
            )
        return
    if owner.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (user,)).fetchone() is None:
        raise PermanentError(
            f"the URL of {role} names the user {user}, who does not exist: "
            f"create it first, or connect as {role}"
        )
    owner.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(role), sql.Identifier(user)))
    if role == DBT:
        owner.execute(
            sql.SQL(
                "ALTER DEFAULT PRIVILEGES FOR ROLE {} IN SCHEMA marts, marts_audit "
                "GRANT SELECT ON TABLES TO {}, {}"
            ).format(sql.Identifier(user), sql.Identifier(JOBS), sql.Identifier(READER))
        )


def _driver_of(connection: sqlalchemy.Connection) -> Owner:
    driver = connection.connection.driver_connection
    if not isinstance(driver, psycopg.Connection):
        raise TypeError(f"expected psycopg, got {type(driver).__name__}")
    return driver


@contextmanager
def _unwrapped() -> Iterator[None]:
    """Raise the driver's error in place of SQLAlchemy's wrapper."""
    try:
        yield
    except sqlalchemy.exc.DBAPIError as error:
        if isinstance(error.orig, psycopg.Error):
            raise error.orig from error
        raise
