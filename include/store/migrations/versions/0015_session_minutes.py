"""Marts of trades tell which minutes of a session they rebuilt."""

from __future__ import annotations

from include.store.migrations.scripts import run_scripts

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the SQL of this revision."""
    run_scripts(revision)
