"""psql on the platform's database, with the program of the embedded PostgreSQL."""

from __future__ import annotations

import os
import subprocess
from urllib.parse import unquote, urlsplit, urlunsplit

from deploy.local.postgres import psql_program
from include.cli.stack import running_database_url
from include.config import load_settings


def run_psql(command: str) -> int:
    """Run psql as the reader; returns its exit code.

    Without a database in the environment, the one of a running `demo` or `up` is used.
    """
    settings = load_settings()
    url = (
        settings.url_for("reader")
        if settings.database_url or settings.reader_database_url
        else running_database_url(settings.candelabra_home, "reader")
    )
    parts = urlsplit(url)
    environment = {**os.environ, "PGTZ": "UTC"}
    if parts.password:
        # By the environment, so that the password does not stand in the list of processes.
        environment["PGPASSWORD"] = unquote(parts.password)
        login = f"{parts.username}@" if parts.username else ""
        port = f":{parts.port}" if parts.port else ""
        url = urlunsplit(parts._replace(netloc=f"{login}{parts.hostname or ''}{port}"))
    arguments = ["--no-psqlrc", *(["--command", command] if command else [])]
    return subprocess.run(
        [psql_program(), url, *arguments], env=environment, check=False
    ).returncode
