"""Migrations: plain SQL below ``sql/``, one folder per revision, ordered by alembic."""
