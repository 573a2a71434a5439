"""A late header counts for the minute of its request, not for the next one."""

from __future__ import annotations

from include.store.migrations.scripts import run_scripts

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the SQL of this revision."""
    run_scripts(revision)
