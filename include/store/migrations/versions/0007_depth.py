"""Raw capture stores the diffs of order books, and their snapshots."""

from __future__ import annotations

from include.store.migrations.scripts import run_scripts

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the SQL files of this revision."""
    run_scripts(revision)
