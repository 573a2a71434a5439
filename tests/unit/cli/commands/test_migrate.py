"""When there is an Airflow to set up. How: tests/dags/processes/test_pools_and_connections.py."""

from __future__ import annotations

import importlib.util

import pytest

from cli.commands.migrate import AIRFLOW_VARIABLES, why_no_airflow


@pytest.fixture(autouse=True)
def _no_airflow(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in AIRFLOW_VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", AIRFLOW_VARIABLES)
def test_each_variable_that_selects_an_airflow_is_enough(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "somewhere")
    assert why_no_airflow() == ""


def test_missing_variables_are_named_in_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", "")
    assert "neither AIRFLOW_HOME nor AIRFLOW__DATABASE__SQL_ALCHEMY_CONN is set" in why_no_airflow()


def test_missing_airflow_is_reported_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", "somewhere")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    assert why_no_airflow() == "Airflow is not installed in this environment"
