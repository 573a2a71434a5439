"""Fixtures for all tests: one embedded PostgreSQL a worker, one fresh database a test."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

from deploy.local.postgres import EmbeddedPostgres

_numbers = itertools.count()
RECORDED_DATA = Path(
    os.environ.get("RECORDED_DATA", Path(__file__).parents[1].parent / "shared" / "data")
)


class OneWorkerForAirflow(LoadScopeScheduling):
    """Airflow is booted in one worker; all other tests go to whoever is free.

    pytest-xdist 3.8 reads its group marks from an attribute that pytest 9.2 no longer has.
    """

    def _split_scope(self, nodeid: str) -> str:
        return "airflow" if nodeid.startswith("tests/dags/") else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> OneWorkerForAirflow:
    """Called by pytest-xdist."""
    return OneWorkerForAirflow(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if RECORDED_DATA.is_dir():
        return
    skip = pytest.mark.skip(reason=f"no recordings at {RECORDED_DATA}; set RECORDED_DATA")
    for item in items:
        if "recorded" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def recorded_data() -> Path:
    """Folder of the recordings; tests that ask for it carry the marker ``recorded``."""
    return RECORDED_DATA


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """One server for this worker. Durability is off: no test of it cuts the power."""
    with tempfile.TemporaryDirectory(prefix="candelabra-pg-") as folder:
        Path(folder).chmod(0o755)
        settings = {"fsync": "off", "full_page_writes": "off", "shared_buffers": "64MB"}
        with EmbeddedPostgres(Path(folder) / "pg", settings=settings) as server:
            yield server


@pytest.fixture(scope="session")
def _template(postgres: EmbeddedPostgres) -> str:
    from include.store.migrate import migrate

    migrate(postgres.create_database("template_candelabra"))
    return "template_candelabra"


@pytest.fixture
def empty_database_url(postgres: EmbeddedPostgres) -> Iterator[str]:
    """A database without any of our tables."""
    name = f"empty_{next(_numbers)}"
    yield postgres.create_database(name)
    postgres.drop_database(name)


@pytest.fixture
def database_url(postgres: EmbeddedPostgres, _template: str) -> Iterator[str]:
    """A migrated database of the test's own, as its owner."""
    name = f"test_{next(_numbers)}"
    yield postgres.create_database(name, template=_template)
    postgres.drop_database(name)
