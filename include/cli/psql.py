"""psql on the platform's database, with the program of the embedded PostgreSQL."""

from __future__ import annotations

import os
import subprocess
from urllib.parse import unquote, urlsplit, urlunsplit

from deploy.local.postgres import psql_program
from include.cli.here import settings_here


def run_psql(command: str) -> int:
    """Run psql as the reader; returns its exit code.

    Without a database in the environment, the one of a running `demo` or `up` is used.
    """
    url = settings_here().url_for("reader")
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
