"""Results of checks by suite, the runs that gave them, and failing rows as rows."""

from __future__ import annotations

from include.store.migrations.scripts import run_scripts

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the SQL of this revision."""
    run_scripts(revision)
