"""``/api/v1/health``: whether served data is reliable."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from include.errors import PermanentError, TransientError
from serving.http.context import context_of
from serving.http.formats import json

router = APIRouter(tags=["health"])


@router.get("/health", summary="Liveness")
async def health(request: Request) -> Response:
    """Reads nothing; for load balancers that probe often."""
    return json(request, {"status": "alive"}, headers={"cache-control": "no-store"})


@router.get("/health/details", summary="Health of each component")
async def details(request: Request) -> Response:
    """Queries PostgreSQL; `status` is `well` if every component is. A streamer reports its streams,
    writer, symbols and repairs; a separate server reports its connection to the streamer.
    """
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
