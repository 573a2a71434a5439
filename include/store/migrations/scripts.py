"""Running the SQL files of a revision."""

from __future__ import annotations

from pathlib import Path

import psycopg
from alembic import op

SQL_FOLDER = Path(__file__).parent / "sql"


def script_text(name: str) -> bytes:
    """The text of a SQL file below ``sql/``; its author is this repository."""
    return (SQL_FOLDER / name).read_bytes()


def run_scripts(revision: str) -> None:
    """Run the SQL files of a revision, in the order of their names.

    Raises:
        FileNotFoundError: the folder has no SQL file, as after an incomplete installation.
    """
    names = sorted(path.name for path in (SQL_FOLDER / revision).glob("*.sql"))
    if not names:
        raise FileNotFoundError(f"no SQL files in {SQL_FOLDER / revision}")
    driver = op.get_bind().connection.driver_connection
    if not isinstance(driver, psycopg.Connection):
        raise TypeError(f"migrations run on psycopg, not on {type(driver).__name__}")
    for name in names:
        # Straight to the driver and without parameters: a % stays a %.
        driver.execute(script_text(f"{revision}/{name}"))
