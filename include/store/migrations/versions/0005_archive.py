"""The archive of raw capture: what was written to Parquet, and how its partitions are dropped."""

from __future__ import annotations

from include.store.migrations.scripts import run_scripts

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the SQL of this revision."""
    run_scripts(revision)
