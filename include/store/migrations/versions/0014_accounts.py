"""Accounts: users, sessions, API tokens and watchlists."""

from __future__ import annotations

from include.store.migrations.scripts import run_scripts

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the SQL of this revision."""
    run_scripts(revision)
