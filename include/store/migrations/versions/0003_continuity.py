"""Who repaired a gap, and what proves each candle."""

from __future__ import annotations

from include.store.migrations.scripts import run_scripts

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the SQL of this revision."""
    run_scripts(revision)
