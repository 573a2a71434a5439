"""Derivative series of futures: tables, coverage and discrepancies."""

from __future__ import annotations

from include.store.migrations.scripts import run_scripts

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the SQL files of this revision."""
    run_scripts(revision)
