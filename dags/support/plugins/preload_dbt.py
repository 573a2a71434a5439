"""Airflow plugin: the scheduler imports dbt once, before it forks a process for each task."""

from cosmos.operators import local  # noqa: F401
from dbt.adapters.postgres import impl  # noqa: F401
from dbt.cli import main  # noqa: F401
