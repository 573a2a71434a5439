"""Environment of dbt, derived from one database URL."""

from __future__ import annotations

from pathlib import Path

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from include.errors import PermanentError

DBT_PROJECT = Path(__file__).parents[2] / "dbt_project"


def dbt_environment(database_url: str, *, home: Path) -> dict[str, str]:
    """Return the environment of a dbt process, for ``dbt_project/profiles.yml``.

    Args:
        database_url: libpq URL of the role that builds the marts.
        home: folder in which dbt stores its manifest and logs; concurrent dbt processes need one
            each.

    Raises:
        PermanentError: the URL cannot be read or names no database.
    """
    try:
        parts = conninfo_to_dict(database_url)
    except ProgrammingError:
        # libpq quotes the offending part, which may be the password, so omit its message.
        raise PermanentError(
            "the database URL of dbt cannot be read; it should be "
            "postgresql://user:password@host:port/database"
        ) from None
    missing = [name for name in ("user", "dbname") if not parts.get(name)]
    if missing:
        raise PermanentError(
            f"the database URL of dbt names no {' and no '.join(missing)}; it should be "
            "postgresql://user:password@host:port/database"
        )
    return {
        "CANDELABRA_DBT_HOST": str(parts.get("host") or "localhost"),
        "CANDELABRA_DBT_PORT": str(parts.get("port") or 5432),
        "CANDELABRA_DBT_USER": str(parts["user"]),
        # dbt hides variables with this prefix from its logs.
        "DBT_ENV_SECRET_CANDELABRA_PASSWORD": str(parts.get("password") or ""),
        "CANDELABRA_DBT_NAME": str(parts["dbname"]),
        "CANDELABRA_DBT_SSLMODE": str(parts.get("sslmode") or "prefer"),
        "DBT_PROJECT_DIR": str(DBT_PROJECT),
        "DBT_PROFILES_DIR": str(DBT_PROJECT),
        "DBT_TARGET_PATH": str(home.absolute() / "dbt" / "target"),
        "DBT_LOG_PATH": str(home.absolute() / "dbt" / "logs"),
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
        "DO_NOT_TRACK": "1",
    }
