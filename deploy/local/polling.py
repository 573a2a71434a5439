"""Poll for a condition until a timeout."""

from __future__ import annotations

import time
from collections.abc import Iterator


def attempts(timeout_s: float, *, interval_s: float) -> Iterator[None]:
    """Yield once for each attempt, ``interval_s`` apart, until ``timeout_s`` is over.

    There is at least one attempt, and the last one follows the last pause. A loop over it reaches
    its ``else`` branch only after the timeout.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        yield
        if time.monotonic() > deadline:
            return
        time.sleep(interval_s)
