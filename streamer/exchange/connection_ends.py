"""The end of connections that nobody needs any more."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import structlog

log = structlog.get_logger(__name__)

CANCEL_TIMEOUT_S = 3.0


async def end_connections(tasks: Collection[asyncio.Task[None]], *, of: str) -> None:
    """Cancel connections and wait for their end, but not for ever.

    Args:
        tasks: those that run the connections.
        of: what they carry, for the log.
    """
    for task in tasks:
        task.cancel()
    if not tasks:
        return
    _, left = await asyncio.wait(tasks, timeout=CANCEL_TIMEOUT_S)
    if left:
        log.warning("connections_left", of=of, connections=len(left))
