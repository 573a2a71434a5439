"""SQL files of the schema: one folder for each revision, and ``repeatable/``."""

from __future__ import annotations

from pathlib import Path

import psycopg
from alembic import op

SQL_FOLDER = Path(__file__).parent / "sql"


def script_text(name: str) -> bytes:
    """Read a SQL file below ``sql/``."""
    return (SQL_FOLDER / name).read_bytes()


def script_names(folder: str) -> list[str]:
    """List the SQL files of a folder below ``sql/``, in the order in which they run.

    Raises:
        FileNotFoundError: the folder has no SQL file, as after an incomplete installation.
    """
    names = sorted(f"{folder}/{path.name}" for path in (SQL_FOLDER / folder).glob("*.sql"))
    if not names:
        raise FileNotFoundError(f"no SQL files in {SQL_FOLDER / folder}")
    return names


def run_scripts(revision: str) -> None:
    """Run the SQL files of a revision on the connection of the migration."""
    driver = op.get_bind().connection.driver_connection
    if not isinstance(driver, psycopg.Connection):
        raise TypeError(f"migrations run on psycopg, not on {type(driver).__name__}")
    for name in script_names(revision):
        # Straight to the driver and without parameters, so that % is not a placeholder.
        driver.execute(script_text(name))
