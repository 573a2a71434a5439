"""Entry point of Airflow's containers, with the settings of the local stack.

``python -m deploy.docker.airflow scheduler`` replaces itself with that process, so that signals
reach it directly. ``init`` migrates the metadata database and sets its pools and connections.
All other arguments go to Airflow's command line: ``python -m deploy.docker.airflow dags list``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from deploy.local.airflow import COMMANDS, airflow_command
from deploy.local.airflow_environment import (
    airflow_environment,
    scheduler_environment,
    write_secrets,
)
from deploy.local.airflow_pools import (
    JOBS_CONNECTION,
    READER_CONNECTION,
    set_pools_and_connections,
)
from include.errors import CandelabraError, PermanentError

PROJECT_ROOT = Path(__file__).parents[2]
PORT = 8080
INIT_TIMEOUT_S = 600.0

SECRETS: Mapping[str, str] = {
    "password": "AIRFLOW_ADMIN_PASSWORD",
    "fernet_key": "AIRFLOW_FERNET_KEY",
    "jwt_secret": "AIRFLOW_JWT_SECRET",
    "secret_key": "AIRFLOW_SECRET_KEY",
}
"""Variable of each Airflow secret; all containers need the same values."""

ADDRESSES: Mapping[str, str] = {
    "AIRFLOW_DATABASE_URL": "postgresql://user:password@host:port/database of Airflow's metadata",
    "AIRFLOW_API_URL": "API server for the other containers, http://host:port",
    "AIRFLOW_PUBLIC_URL": "UI for users, http://host:port",
}


def container_environment(environment: Mapping[str, str], *, component: str) -> dict[str, str]:
    """Return the complete environment of one Airflow process.

    Args:
        environment: of the container; its ``AIRFLOW__…`` variables override ours.
        component: first word of the command; the scheduler also preloads dbt.

    Raises:
        PermanentError: a variable of ``SECRETS`` or ``ADDRESSES`` is missing.
    """
    needed = {**{name: "a secret" for name in SECRETS.values()}, **ADDRESSES}
    missing = [f"{name} ({what})" for name, what in needed.items() if not environment.get(name)]
    if missing:
        raise PermanentError(f"Airflow's container lacks {', '.join(missing)}")
    home = Path(environment.get("AIRFLOW_HOME", "/run/airflow"))
    write_secrets(home, {key: environment[variable] for key, variable in SECRETS.items()})
    own = {
        "AIRFLOW__API__HOST": "0.0.0.0",  # noqa: S104 - inside the container
        "AIRFLOW__API__BASE_URL": environment["AIRFLOW_PUBLIC_URL"],
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{environment['AIRFLOW_API_URL']}/execution/",
    }
    if component == "scheduler":
        own |= scheduler_environment(PROJECT_ROOT)
    given = {name: value for name, value in environment.items() if name.startswith("AIRFLOW__")}
    return airflow_environment(
        home,
        metadata_url=environment["AIRFLOW_DATABASE_URL"],
        project_root=PROJECT_ROOT,
        port=PORT,
        extra={**own, **given},
    )


def command(*arguments: str) -> list[str]:
    """Return the command line of a component, or of any other Airflow command."""
    expanded = COMMANDS.get(arguments[0], arguments[:1]) if arguments else ()
    return airflow_command(*expanded, *arguments[1:])


def initialise(environment: Mapping[str, str]) -> int:
    """Migrate the metadata database and set pools and connections; return the exit code.

    Raises:
        PermanentError, TransientError: pools or connections could not be set.
    """
    migrated = subprocess.run(
        command("db", "migrate"), env=environment, timeout=INIT_TIMEOUT_S, check=False
    )
    if migrated.returncode:
        return migrated.returncode
    urls = {
        READER_CONNECTION: environment.get("READER_DATABASE_URL", ""),
        JOBS_CONNECTION: environment.get("JOBS_DATABASE_URL", ""),
    }
    outcome = set_pools_and_connections(environment, project_root=PROJECT_ROOT, urls=urls)
    sys.stdout.write("".join(f"{line}\n" for line in outcome.lines()))
    return 0


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns only after ``init`` or an error."""
    try:
        environment = container_environment(os.environ, component=next(iter(arguments), ""))
        if list(arguments) == ["init"]:
            return initialise(environment)
    except CandelabraError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    line = command(*arguments)
    # Replaces this process, so that signals reach Airflow.
    os.execve(line[0], line, environment)  # noqa: S606


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
