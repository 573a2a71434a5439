"""A partition that another writer is just making is used once it is there for all."""

from __future__ import annotations

from include.store.migrations.scripts import run_scripts

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the SQL of this revision."""
    run_scripts(revision)
