"""Set the pools and connections of an Airflow.

`candelabra migrate` does so for the Airflow that the environment names, ``LocalAirflow`` for its
own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from include.errors import PermanentError, TransientError

TIMEOUT_S = 120.0

READER_CONNECTION = "candelabra_db"
JOBS_CONNECTION = "candelabra_jobs"


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outcome for each name: ``created``, ``updated`` or ``unchanged``.

    Attributes:
        skipped: why no connection was written; empty if they were.
    """

    pools: dict[str, str] = field(default_factory=dict)
    connections: dict[str, str] = field(default_factory=dict)
    skipped: str = ""

    def lines(self) -> list[str]:
        """Return one line for the pools and one for the connections."""
        lines = [f"Airflow's pools: {_summary(self.pools)}"]
        if self.connections:
            lines.append(f"Airflow's connections: {_summary(self.connections)}")
        if self.skipped:
            lines.append(f"Airflow's connections: skipped, since {self.skipped}")
        return lines


def set_pools_and_connections(
    environment: Mapping[str, str], *, project_root: Path, urls: Mapping[str, str]
) -> Outcome:
    """Create or update the pools of ``dags/support/pools.json`` and a connection for each URL.

    Safe to repeat. Airflow stores the passwords encrypted; without a Fernet key no connection is
    written.

    Args:
        environment: of an Airflow process, with its metadata database and Fernet key.
        project_root: contains ``dags/``.
        urls: database URLs by connection id; empty ones are skipped.

    Raises:
        PermanentError: Airflow's metadata database is not migrated, or its settings are wrong.
        TransientError: its database is unavailable.
    """
    request = {
        "pools": json.loads((project_root / "dags" / "support" / "pools.json").read_text()),
        "connections": {
            conn_id: connection_of(url, conn_id=conn_id) for conn_id, url in urls.items() if url
        },
    }
    try:
        done = subprocess.run(
            [sys.executable, "-m", "dags.support.pools_and_connections"],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            cwd=project_root,
            env=dict(environment) | {"PYTHONPATH": str(project_root)},
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        # The cause would repeat the request with the passwords.
        raise TransientError(
            f"setting Airflow's pools timed out after {TIMEOUT_S:g} s: check its database"
        ) from None
    answer = _last_object(done.stdout)
    if answer is None:
        raise PermanentError(
            f"Airflow's pools could not be set, exit code {done.returncode}; end of its output:\n"
            + "\n".join(done.stderr.strip().splitlines()[-10:])
        )
    if "error" in answer:
        kind = TransientError if answer["transient"] else PermanentError
        raise kind(f"Airflow's pools could not be set: {answer['error']}")
    return Outcome(**answer)


def connection_of(url: str, *, conn_id: str) -> dict[str, Any]:
    """Return the fields of an Airflow connection for a libpq URL.

    Raises:
        PermanentError: not a PostgreSQL URL; the message does not contain the URL.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in {"postgresql", "postgres"}:
        raise PermanentError(
            f"the URL of Airflow's connection {conn_id} is not a PostgreSQL URL: it should be "
            "postgresql://user:password@host:port/database"
        )
    return {
        "conn_type": "postgres",
        "description": "Candelabra's database; set by `candelabra migrate`.",
        "host": unquote(parts.hostname or ""),
        "port": port or 5432,
        "login": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
        "schema": unquote(parts.path.lstrip("/")),
        "extra": json.dumps(dict(parse_qsl(parts.query)), sort_keys=True),
    }


def _last_object(output: str) -> dict[str, Any] | None:
    """Return the last line that is a JSON object; Airflow may print other lines."""
    for line in reversed(output.splitlines()):
        if line.startswith("{"):
            try:
                found = json.loads(line)
            except ValueError:
                continue
            return dict(found)
    return None


def _summary(outcomes: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {outcome}" for name, outcome in outcomes.items())
