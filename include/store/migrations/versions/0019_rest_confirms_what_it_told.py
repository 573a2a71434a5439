"""REST confirms a candle only where it told one, not where it said that there is none."""

from __future__ import annotations

from include.store.migrations.scripts import run_scripts

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the SQL of this revision."""
    run_scripts(revision)
