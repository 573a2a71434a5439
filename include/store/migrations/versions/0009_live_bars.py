"""What the live views of the marts ask for one symbol."""

from __future__ import annotations

from include.store.migrations.scripts import run_scripts

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the SQL of this revision."""
    run_scripts(revision)
