"""Environment variables of Airflow's processes: every setting that Candelabra relies on.

``airflow.cfg`` provides only Airflow's defaults, and ``AIRFLOW…`` variables of the shell are
ignored. The settings are those listed here and those that the caller adds.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from include.errors import PermanentError

USERNAME = "admin"
PARALLELISM = 4

# Variables of the shell that would change the behaviour of `python -m airflow`.
_NOT_INHERITED = ("AIRFLOW", "_AIRFLOW", "PYTHONSTARTUP", "PYTHONHOME")


def airflow_environment(
    home: Path,
    *,
    metadata_url: str,
    project_root: Path,
    port: int,
    extra: Mapping[str, str],
) -> dict[str, str]:
    """Return the complete environment of one Airflow process.

    Args:
        home: AIRFLOW_HOME; secrets are created there once, readable only by the owner.
        metadata_url: libpq URL of the metadata database.
        project_root: contains ``dags/``; added to the import path.
        port: port of the API server on loopback.
        extra: further variables; they override all others.

    Raises:
        PermanentError: ``metadata_url`` is not a PostgreSQL URL.
    """
    url = f"http://127.0.0.1:{port}"
    database = sqlalchemy_url(metadata_url)
    keys = read_or_create_secrets(home)
    logs = home / "logs"
    values = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(project_root / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(home / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": str(PARALLELISM),
        "AIRFLOW__CORE__DEFAULT_TIMEZONE": "utc",
        # A new stack works without clicks in the UI.
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__FERNET_KEY": keys["fernet_key"],
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__CORE__AUTH_MANAGER": (
            "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager"
        ),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USERNAME}:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(password_file(home)),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database,
        # Airflow would choose asyncpg, which is not installed.
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": database,
        "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API__SECRET_KEY": keys["secret_key"],
        "AIRFLOW__API__EXPOSE_CONFIG": "False",
        "AIRFLOW__API__INSTANCE_NAME": "Candelabra",
        "AIRFLOW__API_AUTH__JWT_SECRET": keys["jwt_secret"],
        "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "30",
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "60",
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH": str(home / "bundles"),
        "AIRFLOW__SCHEDULER__CATCHUP_BY_DEFAULT": "False",
        # Tasks of a killed scheduler run again after half a minute, not after five.
        "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "15",
        # By default Airflow fails a task that defers and resumes within 5 s.
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(logs / "tasks"),
        "AIRFLOW__LOGGING__DAG_PROCESSOR_CHILD_PROCESS_LOG_DIRECTORY": str(logs / "parsing"),
        "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
        # Logs its internals at INFO.
        "AIRFLOW__LOGGING__NAMESPACE_LEVELS": "great_expectations=WARNING",
        "AIRFLOW__COSMOS__CACHE_DIR": str(home / "cosmos"),
        "AIRFLOW__COSMOS__ENABLE_TELEMETRY": "False",
        "AIRFLOW__COSMOS__ENABLE_MEMORY_OPTIMISED_IMPORTS": "True",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
        "DO_NOT_TRACK": "1",
        "GX_ANALYTICS_ENABLED": "false",
        "SCARF_ANALYTICS": "false",
        "PYTHONPATH": str(project_root),
        "PYTHONUNBUFFERED": "1",
        # Airflow renames its processes. Without this, setproctitle overwrites the environment in
        # /proc that `processes.marked` reads.
        "SPT_NOENV": "1",
        # Tasks connect to the API server on loopback, never through a proxy.
        "NO_PROXY": _without_proxy(os.environ.get("NO_PROXY", "")),
        "no_proxy": _without_proxy(os.environ.get("no_proxy", "")),
    }
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(_NOT_INHERITED)
    }
    return {**inherited, **values, **extra}


def scheduler_environment(project_root: Path) -> dict[str, str]:
    """Variables that make the scheduler import dbt once, before it forks a process per task."""
    return {
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(project_root / "dags" / "support" / "plugins"),
        "AIRFLOW__CORE__LAZY_LOAD_PLUGINS": "False",
    }


def sqlalchemy_url(metadata_url: str) -> str:
    """Convert a libpq URL to a SQLAlchemy URL for psycopg 3.

    Dollar signs are percent-encoded, because Airflow expands ``$NAME`` in its settings.

    Raises:
        PermanentError: not a PostgreSQL URL; the message does not contain the URL.
    """
    scheme, separator, rest = metadata_url.partition("://")
    if not separator or scheme not in {"postgresql", "postgres"}:
        raise PermanentError(
            "the URL of Airflow's metadata database is not a PostgreSQL URL: it should be "
            "postgresql://user:password@host:port/database"
        )
    return "postgresql+psycopg://" + rest.replace("$", "%24")


def password_file(home: Path) -> Path:
    """Return the file in which the simple auth manager stores the password of ``USERNAME``."""
    return home / "passwords.json"


def read_or_create_secrets(home: Path) -> dict[str, str]:
    """Return the secrets of this Airflow home; create them on the first call.

    Also writes ``password`` to the file of Airflow's simple auth manager.
    """
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = _secrets_file(home)
    if not file.exists():
        _write_private(
            file,
            {
                "password": secrets.token_urlsafe(16),
                "jwt_secret": secrets.token_urlsafe(48),
                "secret_key": secrets.token_urlsafe(32),
                "fernet_key": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            },
        )
    keys: dict[str, str] = json.loads(file.read_text())
    _write_private(password_file(home), {USERNAME: keys["password"]})
    return keys


def write_secrets(home: Path, keys: Mapping[str, str]) -> None:
    """Write the given secrets to this home.

    Args:
        home: AIRFLOW_HOME.
        keys: ``password``, ``jwt_secret``, ``secret_key`` and ``fernet_key``.
    """
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write_private(_secrets_file(home), keys)


def _secrets_file(home: Path) -> Path:
    return home / "secrets.json"


def _write_private(file: Path, content: Mapping[str, str]) -> None:
    half = file.with_name(f"{file.name}.{os.getpid()}")
    descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w") as out:
        json.dump(dict(content), out)
    half.replace(file)


def _without_proxy(hosts: str) -> str:
    return ",".join(filter(None, [hosts, "127.0.0.1", "localhost"]))
