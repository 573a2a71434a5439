"""Trade ids that arrive for unchanged values count as a change."""

from __future__ import annotations

from include.store.migrations.scripts import run_scripts

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the SQL of this revision."""
    run_scripts(revision)
