"""Migrations: plain SQL below ``sql/``, one folder a revision, ordered by alembic."""
