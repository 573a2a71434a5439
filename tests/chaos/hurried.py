"""``candelabra`` beside an exchange whose clock runs fast: waits between tries are as much shorter.

Run as a program: ``python -m tests.chaos.hurried FACTOR stream --symbols …``. Nothing else of the
program is changed; what is a setting comes as one.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace

from include.backoff import Backoff

WAITING = (
    "include.binance.rest",
    "streamer.connection",
    "streamer.ledger",
    "streamer.repair",
    "streamer.startup",
    "streamer.writer",
)
"""Modules that wait between tries."""


def hurry(factor: float) -> None:
    """Divide waits between tries, and looks for what is due."""
    for name in WAITING:
        module = importlib.import_module(name)
        backoff: Backoff = module.BACKOFF
        module.BACKOFF = replace(
            backoff,
            first_s=backoff.first_s / factor,
            most_s=backoff.most_s / factor,
            least_s=max(backoff.least_s / factor, 0.02),
        )
    repair = importlib.import_module("streamer.repair")
    repair.POLL_S = 0.05


if __name__ == "__main__":
    hurry(float(sys.argv.pop(1)))
    from include.cli.app import main

    main()
