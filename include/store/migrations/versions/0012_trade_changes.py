"""What a build of marts needs to know of trades that came or went."""

from __future__ import annotations

from include.store.migrations.scripts import run_scripts

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the SQL of this revision."""
    run_scripts(revision)
