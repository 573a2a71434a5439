"""Ports for servers that come back on the one they had."""

from __future__ import annotations

import random
import socket

BELOW_THE_SYSTEMS = range(20_000, 30_000)


def steady_port() -> int:
    """A free port that the system does not hand out to others while the server is down."""
    for port in random.sample(BELOW_THE_SYSTEMS, 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("a hundred ports between 20000 and 30000 are taken")
