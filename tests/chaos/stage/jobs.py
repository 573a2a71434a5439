"""Jobs that run beside the faults again and again, as Airflow would start them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Event

from include.config import Settings
from include.errors import RefusedAddressError, TransientError
from include.jobs.instruments import sync_instruments
from include.jobs.klines.repair import repair_gaps

PAUSE_S = 1.0
"""Real seconds between two rounds of one job."""
BUILD_TIMEOUT_S = 120.0
MAX_SHOWN = 3_000


class Jobs:
    """``repair_gaps`` and ``dbt build --selector intraday``, each in a thread.

    While faults last, a round may fail, as a task that Airflow tries again.

    Args:
        dbt_environment: variables of the dbt process.
        repair_after_s: younger gaps are the streamer's.

    Attributes:
        rounds: of each job, how many succeeded and how many failed.
    """

    def __init__(
        self, settings: Settings, dbt_environment: Mapping[str, str], *, repair_after_s: float
    ) -> None:
        self.rounds = {"repair": [0, 0], "dbt": [0, 0]}
        self._settings = settings
        self._dbt_environment = {**os.environ, **dbt_environment}
        self._repair_after_s = repair_after_s
        self._ends = Event()
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="chaos-jobs")
        self._running: list[Future[None]] = []
        self._last_error = ""

    def start(self) -> None:
        """Begin the rounds."""
        self._running = [
            self._threads.submit(self._repeat, "repair", self._repair),
            self._threads.submit(self._repeat, "dbt", self._build),
        ]

    def stop(self) -> None:
        """End after the present rounds; raises what no job may raise."""
        self._ends.set()
        self._threads.shutdown()
        ended, self._running = self._running, []
        for one in ended:
            one.result()
        if ended and not self.rounds["repair"][0]:
            raise AssertionError(f"no repair succeeded during the faults: {self._last_error}")

    def build(self) -> None:
        """Bring the registry and the marts up to date; without faults both must succeed.

        Raises:
            AssertionError: dbt failed.
            CandelabraError: the registry could not be read.
        """
        sync_instruments(settings=self._settings)
        if (shown := self._build()) is not None:
            raise AssertionError(f"dbt build failed without faults:\n{shown}")

    def _repeat(self, name: str, once: Callable[[], str | None]) -> None:
        while not self._ends.is_set():
            self.rounds[name][once() is not None] += 1
            self._ends.wait(PAUSE_S)

    def _repair(self) -> str | None:
        """Repair gaps; return the error, if one came."""
        try:
            repair_gaps(
                settings=self._settings, worker="chaos jobs", older_than_s=self._repair_after_s
            )
        except (TransientError, RefusedAddressError) as error:
            self._last_error = str(error)
            return self._last_error
        return None

    def _build(self) -> str | None:
        """Build the marts; return the end of dbt's output if it failed."""
        dbt = Path(sys.executable).with_name("dbt")
        try:
            done = subprocess.run(
                [str(dbt), "build", "--selector", "intraday", "--quiet", "--no-use-colors"],
                env=self._dbt_environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                check=False,
                text=True,
                timeout=BUILD_TIMEOUT_S,
            )
        except subprocess.TimeoutExpired:
            return f"dbt did not end within {BUILD_TIMEOUT_S:g} s"
        return None if done.returncode == 0 else done.stdout[-MAX_SHOWN:]
