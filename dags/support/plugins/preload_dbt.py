"""Imported by the scheduler as a plugin: its forks, the tasks, then find dbt in memory."""

from cosmos.operators import local  # noqa: F401
from dbt.adapters.postgres import impl  # noqa: F401
from dbt.cli import main  # noqa: F401
