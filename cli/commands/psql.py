"""psql on the platform's database, with the program of the embedded PostgreSQL."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NoReturn
from urllib.parse import unquote, urlsplit, urlunsplit

from cli.local.location import settings_here
from deploy.local.postgres import psql_program


def run_psql(commands: Sequence[str]) -> NoReturn:
    """Replace this process by psql with the reader's role; psql handles Ctrl-C and the exit code.

    Without a database in the environment, the one of a running `demo` or `up` is used.

    Args:
        commands: statements that psql runs in this order, then exits; none: psql is interactive.
    """
    url = settings_here().url_for("reader")
    parts = urlsplit(url)
    environment = {**os.environ, "PGTZ": "UTC"}
    if parts.password:
        # Passed in the environment, so that the password does not appear in the process list.
        environment["PGPASSWORD"] = unquote(parts.password)
        login = f"{parts.username}@" if parts.username else ""
        hosts = parts.netloc.rpartition("@")[2]
        url = urlunsplit(parts._replace(netloc=f"{login}{hosts}"))
    arguments = ["--no-psqlrc", *(f"--command={command}" for command in commands)]
    program = psql_program()
    os.execve(program, [str(program), url, *arguments], environment)  # noqa: S606 - no shell
