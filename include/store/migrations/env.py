"""Alembic's entry point: runs the revisions on the connection of ``migrate``."""

from __future__ import annotations

from alembic import context

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    # Airflow has an alembic_version table in public.
    version_table_schema="ops",
    # migrate() wraps everything in one transaction.
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
