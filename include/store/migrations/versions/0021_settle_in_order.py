"""Open candles that are settled are locked in the order in which they are written."""

from __future__ import annotations

from include.store.migrations.scripts import run_scripts

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the SQL of this revision."""
    run_scripts(revision)
