"""A log of minutes that rise in status, for what is counted of them."""

from __future__ import annotations

from include.store.migrations.scripts import run_scripts

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the SQL of this revision."""
    run_scripts(revision)
