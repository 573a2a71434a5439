"""Prepare and finish a restore: roles before the dump, owners after it."""

from __future__ import annotations

from psycopg import sql

from include.errors import PermanentError
from include.store.candles.merging import Connection
from include.store.migrate import DBT, check_server_version
from include.store.migrations.scripts import script_text
from include.store.postgres.pools import redact, translated

SCHEMAS_OF_DBT = ("marts", "marts_audit")

# The functions behind the live views run with their owner's privileges, so the owner must not be
# ours.
_GIVE_ROUTINES = """
DO $$
DECLARE
    routine regprocedure;
BEGIN
    FOR routine IN SELECT oid FROM pg_proc WHERE pronamespace = 'marts'::regnamespace LOOP
        EXECUTE format('ALTER ROUTINE %s OWNER TO candelabra_dbt', routine);
    END LOOP;
END
$$
"""


def prepare_restore(connection: Connection, *, where: str) -> None:
    """Refuse a database that is in use, and create the roles, which no database dump contains.

    Args:
        where: the database's URL, for messages.

    Raises:
        PermanentError: the database has our schemas already, its server is too old, or a privilege
            is missing.
    """
    check_server_version(connection.info.server_version, where=redact(where))
    with translated(connection), connection.transaction():
        row = connection.execute(
            "SELECT to_regnamespace('market') IS NULL AND to_regnamespace('ops') IS NULL"
        ).fetchone()
        if row != (True,):
            raise PermanentError(
                f"{redact(where)} has the schemas market or ops already; restore into an empty "
                "database: create one, set DATABASE_URL to it, and swap the names afterwards"
            )
        connection.execute(script_text("repeatable/roles.sql"))


def give_marts_to_dbt(connection: Connection) -> None:
    """Make dbt the owner of the marts again: only an owner can rebuild them.

    Raises:
        PermanentError: the login is neither superuser nor owner and member of the role.
    """
    role, database = sql.Identifier(DBT), sql.Identifier(connection.info.dbname)
    with translated(connection), connection.transaction():
        relations = connection.execute(
            "SELECT n.nspname, c.relname FROM pg_class AS c "
            "JOIN pg_namespace AS n ON n.oid = c.relnamespace "
            "WHERE n.nspname = ANY(%s) AND c.relkind IN ('r', 'p', 'v', 'm')",
            (list(SCHEMAS_OF_DBT),),
        ).fetchall()
        # An ordinary owner can transfer a schema only to a role that may create schemas.
        connection.execute(sql.SQL("GRANT CREATE ON DATABASE {} TO {}").format(database, role))
        for name in SCHEMAS_OF_DBT:
            schema = sql.Identifier(name)
            connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(schema))
            connection.execute(sql.SQL("ALTER SCHEMA {} OWNER TO {}").format(schema, role))
        for path in relations:
            # ALTER TABLE also accepts views.
            relation = sql.Identifier(*path)
            connection.execute(sql.SQL("ALTER TABLE {} OWNER TO {}").format(relation, role))
        connection.execute(_GIVE_ROUTINES)
        connection.execute(sql.SQL("REVOKE CREATE ON DATABASE {} FROM {}").format(database, role))
