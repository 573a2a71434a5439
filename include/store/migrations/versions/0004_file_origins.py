"""Rows of users' files of one name are distinguished."""

from __future__ import annotations

from include.store.migrations.scripts import run_scripts

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the SQL files of this revision."""
    run_scripts(revision)
