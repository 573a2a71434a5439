"""Airflow gets its settings only from us, and only the owner can read its secrets."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from deploy.local.airflow_environment import (
    airflow_environment,
    password_file,
    read_or_create_secrets,
    sqlalchemy_url,
)
from include.errors import PermanentError


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "air flow"


def build(home: Path, **changes):
    arguments = {
        "metadata_url": "postgresql://user:secret@127.0.0.1:5432/airflow",
        "project_root": Path("/a place/candelabra"),
        "port": 8080,
        "extra": {},
    }
    return airflow_environment(home, **{**arguments, **changes})


def test_secrets_are_created_once_and_readable_only_by_the_owner(home):
    first = read_or_create_secrets(home)
    assert read_or_create_secrets(home) == first
    assert len(set(first.values())) == 4
    for file in home.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_password_file_has_the_format_of_the_simple_auth_manager(home):
    password = read_or_create_secrets(home)["password"]
    assert json.loads(password_file(home).read_text()) == {"admin": password}


def test_only_admin_can_log_in_and_only_on_loopback(home):
    environment = build(home)
    assert environment["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS"] == "False"
    assert environment["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS"] == "admin:admin"
    assert environment["AIRFLOW__API__HOST"] == "127.0.0.1"


def test_tasks_of_a_killed_scheduler_are_soon_run_again(home):
    assert build(home)["AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL"] == "15"


def test_execution_api_uses_the_chosen_port(home):
    url = build(home, port=12345)["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"]
    assert url == "http://127.0.0.1:12345/execution/"


def test_airflow_variables_of_the_shell_are_ignored(home, monkeypatch):
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    monkeypatch.setenv("AIRFLOW__CORE__UNKNOWN", "x")
    monkeypatch.setenv("AIRFLOW_CONFIG", "/somewhere/airflow.cfg")
    environment = build(home)
    assert environment["AIRFLOW__CORE__EXECUTOR"] == "LocalExecutor"
    assert "AIRFLOW__CORE__UNKNOWN" not in environment
    assert "AIRFLOW_CONFIG" not in environment


def test_loopback_never_goes_through_a_proxy(home, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "intranet")
    monkeypatch.delenv("no_proxy", raising=False)
    environment = build(home)
    assert environment["NO_PROXY"] == "intranet,127.0.0.1,localhost"
    assert environment["no_proxy"] == "127.0.0.1,localhost"


def test_variables_of_the_caller_override(home):
    environment = build(home, extra={"JOBS_DATABASE_URL": "x", "AIRFLOW__CORE__PARALLELISM": "2"})
    assert environment["JOBS_DATABASE_URL"] == "x"
    assert environment["AIRFLOW__CORE__PARALLELISM"] == "2"


@pytest.mark.parametrize(
    ("libpq", "sqlalchemy"),
    [
        ("postgresql://u:p%40s@h:1/d", "postgresql+psycopg://u:p%40s@h:1/d"),
        ("postgres://u@h/d", "postgresql+psycopg://u@h/d"),
        # Airflow would expand $HOME inside a setting.
        ("postgresql://u:pa$HOME@h/d", "postgresql+psycopg://u:pa%24HOME@h/d"),
    ],
)
def test_libpq_url_becomes_a_psycopg_url(libpq, sqlalchemy):
    assert sqlalchemy_url(libpq) == sqlalchemy


@pytest.mark.parametrize("wrong", ["sqlite:///x.db", "host=127.0.0.1 password=hush", ""])
def test_other_database_is_rejected_without_printing_the_password(wrong):
    with pytest.raises(PermanentError, match="it should be postgresql://") as caught:
        sqlalchemy_url(wrong)
    assert "hush" not in str(caught.value)
