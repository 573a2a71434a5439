"""``candelabra migrate``: schema and roles, and the pools and connections of a user's Airflow."""

from __future__ import annotations

import importlib.util
import os

import typer

AIRFLOW_VARIABLES = (
    "AIRFLOW_HOME",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_CMD",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_SECRET",
)
"""Airflow's own variables: any of them shows that there is an Airflow, and where."""


def migrate() -> None:
    """Create or upgrade schemas, tables and roles of DATABASE_URL; set up your own Airflow."""
    from cli.local.location import settings_here
    from cli.terminal.command_logs import configure_command_logs
    from include.store.migrate import migrate as run_migrations
    from include.store.postgres.pools import redact

    settings = settings_here()
    configure_command_logs(settings.log_level, settings.log_format)
    url = settings.url_for("owner")
    run_migrations(url, role_urls=settings.role_urls(), session_hours=settings.session_hours)
    typer.echo(f"{redact(url)} is up to date")
    reason = why_no_airflow()
    if reason:
        typer.echo(f"Airflow's pools and connections: skipped, since {reason}")
        return
    from cli.local.stack import PROJECT_ROOT
    from deploy.local.airflow_pools import (
        JOBS_CONNECTION,
        READER_CONNECTION,
        set_pools_and_connections,
    )

    outcome = set_pools_and_connections(
        os.environ,
        project_root=PROJECT_ROOT,
        urls={
            READER_CONNECTION: settings.url_for("reader"),
            JOBS_CONNECTION: settings.url_for("jobs"),
        },
    )
    for line in outcome.lines():
        typer.echo(line)


def why_no_airflow() -> str:
    """Return why there is no Airflow to set up; empty if there is one."""
    if importlib.util.find_spec("airflow") is None:
        return "Airflow is not installed in this environment"
    if not any(os.environ.get(name) for name in AIRFLOW_VARIABLES):
        return (
            "neither AIRFLOW_HOME nor AIRFLOW__DATABASE__SQL_ALCHEMY_CONN is set "
            "(`demo` and `up` set up their own Airflow)"
        )
    return ""
