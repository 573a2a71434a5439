"""Halts of USD-M, through which its klines go on, are told from the rows."""

from __future__ import annotations

from include.store.migrations.scripts import run_scripts

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the SQL of this revision."""
    run_scripts(revision)
