"""Marts are compared with the minutes, a month of a symbol at a time."""

from __future__ import annotations

from include.store.migrations.scripts import run_scripts

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the SQL files of this revision."""
    run_scripts(revision)
