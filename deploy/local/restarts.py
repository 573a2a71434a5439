"""Start again what died, with backoff, jitter and an end."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

import structlog

from include.backoff import Backoff

log = structlog.get_logger(__name__)

QUICK_DEATH_S = 60.0
"""A service that ran longer is counted as healthy; earlier deaths are forgotten."""
MAX_QUICK_DEATHS = 5
BACKOFF = Backoff(first_s=1.0, max_s=30.0, min_s=0.5)


class Service(Protocol):
    """What ``Restarter`` keeps running."""

    name: str

    def ended(self) -> str | None:
        """Return how the service ended and where its log is, or None while it runs."""

    def is_hopeless(self) -> bool:
        """Whether the ended service would end again for the same reason."""

    def start_again(self) -> None:
        """Start the ended service again; does not wait until it is ready."""


class Restarter:
    """Starts one service again whenever it ended, until it died too often in a row.

    Args:
        service: runs when this is made.
        backoff: wait before each start.
        clock: seconds.
    """

    def __init__(
        self,
        service: Service,
        *,
        backoff: Backoff = BACKOFF,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.service = service
        self.given_up = ""
        """Why the service is not started any more; empty while it is."""
        self._backoff = backoff
        self._clock = clock
        self._started_s = clock()
        self._deaths = 0
        self._start_at_s: float | None = None

    def keep(self) -> None:
        """Start the service again if it ended and its wait is over; called a few times a second."""
        if self.given_up:
            return
        if self._start_at_s is None:
            how = self.service.ended()
            if how is not None:
                self._died(how)
        elif self._clock() >= self._start_at_s:
            self._start_at_s = None
            self._started_s = self._clock()
            try:
                self.service.start_again()
            except OSError as error:  # no memory or no process left
                self._died(f"{self.service.name} could not be started: {error}")
                return
            log.warning("service_restarted", service=self.service.name, deaths=self._deaths)

    def _died(self, how: str) -> None:
        lived_s = self._clock() - self._started_s
        self._deaths = self._deaths + 1 if lived_s < QUICK_DEATH_S else 1
        if self.service.is_hopeless():
            self.given_up = how
        elif self._deaths >= MAX_QUICK_DEATHS:
            self.given_up = (
                f"{self.service.name} ended {self._deaths} times, each within "
                f"{QUICK_DEATH_S:.0f} s of its start, and is not started again. "
                f"Mend the cause and start the stack again. The last end: {how}"
            )
        if self.given_up:
            log.error("service_given_up", service=self.service.name, reason=self.given_up)
            return
        wait_s = self._backoff.wait_s(self._deaths)
        self._start_at_s = self._clock() + wait_s
        log.warning(
            "service_ended",
            service=self.service.name,
            how=how.splitlines()[0].rstrip(":"),
            restart_in_s=round(wait_s, 1),
        )
