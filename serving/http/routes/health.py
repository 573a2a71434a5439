"""``/api/v1/health``: whether what is served can be relied upon."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from include.errors import PermanentError, TransientError
from serving.http.context import context_of
from serving.http.formats import json

router = APIRouter(tags=["health"])


@router.get("/health", summary="Whether the server lives")
async def health(request: Request) -> Response:
    """Asks nobody; for load balancers that ask often."""
    return json(request, {"status": "alive"}, headers={"cache-control": "no-store"})


@router.get("/health/details", summary="How each part is")
async def details(request: Request) -> Response:
    """PostgreSQL is asked; `status` is `well` where every part is. A streamer tells of its streams,
    its writer, its symbols and its repairs; a server before one, of its line to it."""
    context = context_of(request)
    began_s = time.monotonic()
    database: dict[str, Any] = {"status": "well"}
    try:
        await context.history.call(lambda connection: connection.execute("SELECT 1").fetchone())
        database["answered_in_ms"] = round((time.monotonic() - began_s) * 1_000, 1)
    except (TransientError, PermanentError, TimeoutError):
        database = {"status": "away"}
    market = context.condition()
    parts = {
        "database": database,
        **market.pop("components", {}),
        "market": market,
        "readers": {"status": "well", "subscriptions": context.live_bars.subscribers},
    }
    is_well = all(part["status"] == "well" for part in parts.values())
    return json(
        request,
        {"status": "well" if is_well else "ailing", "components": parts},
        headers={"cache-control": "no-store"},
    )
