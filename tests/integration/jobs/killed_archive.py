"""Archives as the DAG does, and is killed at a step, as by ``kill -9``.

Run as a program: ``python -m tests.integration.jobs.killed_archive STEP before|after``, where the
step is a function that ``include.jobs.archive`` calls.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from include.config import load_settings
from include.jobs import archive
from tests.integration.jobs.raw_days import archive as archive_old_days


def kill_at(step: str, when: str) -> None:
    """Let this process be killed before or after a step is done for the first time."""
    owner: Any = os if step == "replace" else archive
    real = getattr(owner, step)

    def killed(*arguments: Any, **options: Any) -> Any:
        if when == "after":
            real(*arguments, **options)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, step, killed)


if __name__ == "__main__":
    kill_at(*sys.argv[1:])
    archive_old_days(load_settings())
