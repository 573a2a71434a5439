"""The environment of Airflow's processes: every setting that Candelabra relies on.

Nothing comes from ``airflow.cfg`` but Airflow's own defaults, and nothing named ``AIRFLOW…``
from the shell: what runs is what is written here, and what the caller adds on purpose.
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

# Variables that change what `python -m airflow` is or does, whatever shell started us.
_NOT_INHERITED = ("AIRFLOW", "_AIRFLOW", "PYTHONSTARTUP", "PYTHONHOME")


def airflow_environment(
    home: Path,
    *,
    metadata_url: str,
    project_root: Path,
    port: int,
    extra: Mapping[str, str],
) -> dict[str, str]:
    """The whole environment of one Airflow process.

    Args:
        home: AIRFLOW_HOME; secrets are made there once and kept readable by its owner alone.
        metadata_url: libpq URL of the metadata database.
        project_root: folder that holds ``dags/`` and is put on the import path.
        port: port of the API server on loopback.
        extra: variables for tasks; they win over everything here.

    Raises:
        PermanentError: ``metadata_url`` is not a PostgreSQL URL.
    """
    url = f"http://127.0.0.1:{port}"
    database = sqlalchemy_url(metadata_url)
    keys = read_or_make_secrets(home)
    logs = home / "logs"
    values = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(project_root / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(home / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": str(PARALLELISM),
        "AIRFLOW__CORE__DEFAULT_TIMEZONE": "utc",
        # Pieces of one backfill: 150 symbols since 2017.
        "AIRFLOW__CORE__MAX_MAP_LENGTH": "16384",
        # A fresh stack should work by itself; a DAG can be paused in the UI.
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
        # Airflow would choose asyncpg, which is not installed; psycopg speaks both.
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
        # A task that defers and resumes within 5 s is failed without it.
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(logs / "tasks"),
        "AIRFLOW__LOGGING__DAG_PROCESSOR_CHILD_PROCESS_LOG_DIRECTORY": str(logs / "parsing"),
        "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
        # It tells at INFO which of its own fields it looked up.
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
        # Airflow renames its processes; setproctitle would write over the environment in /proc,
        # by which `processes.marked` knows them.
        "SPT_NOENV": "1",
        # Tasks speak with the API server on loopback; a proxy of the shell must not carry that.
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
    """The SQLAlchemy URL, for psycopg 3, of a libpq URL.

    A dollar sign is percent-encoded: Airflow expands ``$NAME`` in its settings.

    Raises:
        PermanentError: the URL is of no PostgreSQL; the message keeps the URL to itself.
    """
    scheme, separator, rest = metadata_url.partition("://")
    if not separator or scheme not in {"postgresql", "postgres"}:
        raise PermanentError(
            "Airflow's metadata URL is of no PostgreSQL: it should be "
            "postgresql://user:password@host:port/database"
        )
    return "postgresql+psycopg://" + rest.replace("$", "%24")


def password_file(home: Path) -> Path:
    """Where the simple auth manager looks for the password of ``USERNAME``."""
    return home / "passwords.json"


def read_or_make_secrets(home: Path) -> dict[str, str]:
    """The keys of this Airflow home, made once.

    ``password`` is also written in the form that Airflow's simple auth manager reads.
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


def keep_secrets(home: Path, keys: Mapping[str, str]) -> None:
    """Use these keys in this home, instead of keys of its own.

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
