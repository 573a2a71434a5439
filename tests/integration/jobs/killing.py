"""Jobs in a process that is killed at a step, as by ``kill -9``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from include.config import Settings

ROOT = Path(__file__).parents[3]


def kill_at(owner: Any, name: str, when: str, calls: int = 1) -> None:
    """Kill this process ``before`` or ``after`` the n-th call of a function.

    Args:
        owner: module or object in which the job finds the function.
    """
    real, seen = getattr(owner, name), 0

    def killed(*arguments: Any, **named: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen < calls:
            return real(*arguments, **named)
        if when == "after":
            real(*arguments, **named)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, killed)


def run_killed(settings: Settings, *program: str) -> None:
    """Run Python (``-c`` or ``-m`` and its arguments) by a test's settings until it is killed."""
    done = subprocess.run(
        [sys.executable, *program],
        cwd=ROOT,
        env=os.environ
        | {
            "JOBS_DATABASE_URL": settings.url_for("jobs"),
            "BINANCE_REST_URL": settings.binance_rest_url,
            "BINANCE_UM_REST_URL": settings.binance_um_rest_url,
            "BINANCE_CM_REST_URL": settings.binance_cm_rest_url,
            "BINANCE_DUMP_URL": settings.binance_dump_url,
            "BINANCE_DUMP_LIST_URL": settings.binance_dump_list_url,
            "CANDELABRA_HOME": str(settings.candelabra_home),
            "PYTHONPATH": str(ROOT),
        },
        timeout=120,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
