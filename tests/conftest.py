"""Fixtures for all tests: one embedded PostgreSQL a worker, one fresh database a test."""

from __future__ import annotations

import itertools
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import structlog
from xdist.scheduler import LoadScopeScheduling

from deploy.local.postgres import EmbeddedPostgres
from include import logs
from tests.durations import read_table

IN_MEMORY = Path("/dev/shm")  # noqa: S108
ROOM_BYTES = 8 << 30


def _work_in_memory() -> None:
    """Temporary folders, the databases in them above all, in memory where there is room.

    A database a test is 1,400 small files: on a busy disk they took most of the tests' time.
    ``TMPDIR`` chooses otherwise.
    """
    if "TMPDIR" in os.environ or not IN_MEMORY.is_dir():
        return
    found = os.statvfs(IN_MEMORY)
    may_run = not found.f_flag & os.ST_NOEXEC  # tests write programs into their folders
    if may_run and found.f_bavail * found.f_frsize >= ROOM_BYTES:
        os.environ["TMPDIR"] = tempfile.tempdir = str(IN_MEMORY)


_work_in_memory()
# On a busy machine an example may take any time; speed is measured in benchmarks/.
hypothesis.settings.register_profile("without_deadline", deadline=None)
hypothesis.settings.load_profile("without_deadline")
_numbers = itertools.count()
RECORDED_DATA = Path(
    os.environ.get("RECORDED_DATA", Path(__file__).parents[1].parent / "shared" / "data")
)


@pytest.fixture(autouse=True)
def _own_logs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A command that a test runs in this process sets up logs: not those of later tests."""
    monkeypatch.setattr(logs, "CACHES_LOGGERS", False)
    configured = structlog.get_config() if structlog.is_configured() else None
    yield
    root = logging.getLogger()
    ours = [one for one in root.handlers if isinstance(one, logs.LibraryLines)]
    for handler in ours:
        root.removeHandler(handler)
    if ours and configured is None:
        structlog.reset_defaults()
    elif ours and configured is not None:
        structlog.configure(**configured)


A_FILE_AT_ONCE = (
    "tests/integration/quality/",
    "tests/integration/deploy/test_containers.py",
)
"""Their tests share a database, or a whole stack, that is set up once a file."""


MARTS_OF_BARS, MARTS = "tests/integration/dbt/bars/", "tests/integration/dbt/"
"""Parsing the dbt project and building its models takes 20 s in each worker, so two do it."""


PROCESSES_OF_AIRFLOW = "tests/dags/processes/"
"""They start Airflow's processes, and import no Airflow themselves: another worker runs them."""


class OneWorkerForAirflow(LoadScopeScheduling):
    """Airflow is booted in one worker, dbt in two; files with shared data stay in one, too.

    All other tests go to any free worker. pytest-xdist 3.8 reads its group marks from an attribute
    that pytest 9.2 no longer has.
    """

    def _split_scope(self, nodeid: str) -> str:
        if nodeid.startswith(PROCESSES_OF_AIRFLOW):
            return "processes of airflow"
        if nodeid.startswith("tests/dags/"):
            return "airflow"
        for folder in (MARTS_OF_BARS, MARTS):
            if nodeid.startswith(folder):
                return folder
        return nodeid.partition("::")[0] if nodeid.startswith(A_FILE_AT_ONCE) else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> OneWorkerForAirflow:
    """Called by pytest-xdist."""
    return OneWorkerForAirflow(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):  # slow tests first: no process waits for one at the end
        seconds = read_table()
        items.sort(key=lambda item: -seconds.get(item.nodeid, 0.0))
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
        settings = {
            "fsync": "off", "full_page_writes": "off", "shared_buffers": "64MB",
            "max_wal_size": "512MB",
        }  # fmt: skip
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
