"""Candles, instruments, raw capture, ledgers, change log, merge and weight budget."""

from __future__ import annotations

from include.store.migrations.scripts import run_scripts

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the SQL of this revision."""
    run_scripts(revision)
