"""Every table, index and trigger of the schemas market, ops and accounts."""

from __future__ import annotations

from include.store.migrations.scripts import run_scripts

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the SQL files of the baseline."""
    run_scripts(revision)
