"""Airflow's containers use the local stack's settings with their own addresses and secrets."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.docker.airflow import ADDRESSES, PORT, SECRETS, command, container_environment
from deploy.local.airflow_environment import scheduler_environment
from include.errors import PermanentError

ROOT = Path(__file__).parents[3]


def container(tmp_path: Path, **changes: str) -> dict[str, str]:
    return {
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW_DATABASE_URL": "postgresql://airflow:pw@postgres:5432/airflow",
        "AIRFLOW_API_URL": "http://airflow-api-server:8080",
        "AIRFLOW_PUBLIC_URL": "http://localhost:8080",
        **{name: f"{name}-value" for name in SECRETS.values()},
        **changes,
    }


def test_containers_use_the_given_addresses_and_secrets(tmp_path):
    values = container_environment(container(tmp_path), component="api-server")
    assert values["AIRFLOW__API__HOST"] == "0.0.0.0"
    assert values["AIRFLOW__API__PORT"] == str(PORT)
    assert values["AIRFLOW__API__BASE_URL"] == "http://localhost:8080"
    url = values["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"]
    assert url == "http://airflow-api-server:8080/execution/"
    database = values["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]
    assert database == "postgresql+psycopg://airflow:pw@postgres:5432/airflow"
    assert values["AIRFLOW__CORE__FERNET_KEY"] == "AIRFLOW_FERNET_KEY-value"
    assert values["AIRFLOW__API_AUTH__JWT_SECRET"] == "AIRFLOW_JWT_SECRET-value"
    assert values["AIRFLOW__API__SECRET_KEY"] == "AIRFLOW_SECRET_KEY-value"


def test_given_password_is_stored_readable_only_by_the_owner(tmp_path):
    container_environment(container(tmp_path), component="api-server")
    changed = container(tmp_path, AIRFLOW_ADMIN_PASSWORD="another")
    values = container_environment(changed, component="api-server")
    file = Path(values["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"])
    assert json.loads(file.read_text()) == {"admin": "another"}
    for path in (tmp_path / "airflow").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_airflow_settings_of_the_container_override(tmp_path):
    given = {"AIRFLOW__CORE__PARALLELISM": "9", "AIRFLOW__LOGGING__BASE_LOG_FOLDER": "/var/log/x"}
    values = container_environment(container(tmp_path, **given), component="scheduler")
    assert given.items() <= values.items()


def test_only_the_scheduler_preloads_dbt(tmp_path):
    preload = scheduler_environment(ROOT)
    assert (Path(preload["AIRFLOW__CORE__PLUGINS_FOLDER"]) / "preload_dbt.py").exists()
    scheduler = container_environment(container(tmp_path), component="scheduler")
    assert preload.items() <= scheduler.items()
    triggerer = container_environment(container(tmp_path), component="triggerer")
    assert not preload.items() & triggerer.items()


@pytest.mark.parametrize("name", [*SECRETS.values(), *ADDRESSES])
def test_missing_variable_is_named(tmp_path, name):
    with pytest.raises(PermanentError, match=f"lacks {name} "):
        container_environment(container(tmp_path, **{name: ""}), component="scheduler")


def test_components_expand_and_other_commands_go_to_airflow():
    airflow = [sys.executable, "-P", "-m", "airflow"]
    assert command("scheduler") == [*airflow, "scheduler", "--skip-serve-logs"]
    assert command("dags", "list") == [*airflow, "dags", "list"]
    assert command() == airflow


def test_error_is_one_line_and_an_exit_code(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "deploy.docker.airflow", "scheduler"],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "AIRFLOW_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Airflow's container lacks AIRFLOW_ADMIN_PASSWORD (a secret), ")
    assert done.stderr.count("\n") == 1
