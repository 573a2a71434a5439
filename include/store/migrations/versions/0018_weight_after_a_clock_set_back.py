"""A minute of weight that the clock has not reached yet spends nothing of the present one."""

from __future__ import annotations

from include.store.migrations.scripts import run_scripts

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the SQL of this revision."""
    run_scripts(revision)
