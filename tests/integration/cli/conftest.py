"""The simulated exchange and database of the jobs' tests, for the commands that run those jobs."""

from __future__ import annotations

from tests.integration.jobs.conftest import connection as connection
from tests.integration.jobs.conftest import exchange as exchange
from tests.integration.jobs.conftest import host as host
from tests.integration.jobs.conftest import make_settings as make_settings
from tests.integration.jobs.conftest import oracle as oracle
from tests.integration.jobs.conftest import settings as settings
from tests.integration.jobs.conftest import through_host as through_host
