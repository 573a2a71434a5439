"""${message}"""

from __future__ import annotations

from include.store.migrations.scripts import run_scripts

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    """Run the SQL of this revision."""
    run_scripts(revision)
