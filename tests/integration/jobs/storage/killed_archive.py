"""Archives as the DAG does, and is killed at a step, as by ``kill -9``.

Run as ``python -m tests.integration.jobs.storage.killed_archive STEP before|after``; the step is a
function that ``include.jobs.storage.archive`` calls.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from include.config import load_settings
from include.jobs.storage import archive
from tests.integration.jobs.killing import kill_at
from tests.integration.jobs.storage.raw_days import archive as archive_old_days

if __name__ == "__main__":
    step, when = sys.argv[1:]
    owner: Any = os if step == "replace" else archive
    kill_at(owner, step, when)
    archive_old_days(load_settings())
