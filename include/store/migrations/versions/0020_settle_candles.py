"""A batch of settled candles is one statement."""

from __future__ import annotations

from include.store.migrations.scripts import run_scripts

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the SQL of this revision."""
    run_scripts(revision)
