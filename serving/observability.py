"""``/metrics``, ``/health`` and ``/ready``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from include.config import Settings
from serving.http.server import Place, serving
from streamer.health.metrics import Exposition
from streamer.health.probes import Verdict, liveness, readiness
from streamer.health.telemetry import TelemetrySources


@asynccontextmanager
async def observed_by_http(settings: Settings, observed: TelemetrySources) -> AsyncIterator[None]:
    """Serve a streamer's metrics and probes, from before its start until after its end.

    Raises:
        PermanentError: the host or port of the settings is unavailable.
    """
    if not settings.streamer_http:
        yield
        return
    app = Starlette(routes=observability_routes(observed))
    place = Place(settings.streamer_http_host, settings.streamer_http_port)
    async with serving(app, place) as observed.http_url:
        yield


def observability_routes(observed: TelemetrySources) -> list[Route]:
    """Routes that answer from the streamer's memory.

    ``/health`` and ``/ready`` answer 200 or 503 with ``{"status", "reasons", …}``.
    """
    exposition = Exposition(observed)

    async def metrics(request: Request) -> Response:
        text, content_type = exposition.text(request.headers.get("accept", ""))
        # Set as a header: the framework would add a second charset to a media type.
        return Response(text, headers={"content-type": content_type})

    def judged(judge: Callable[[TelemetrySources], Verdict], well: str, not_well: str) -> Any:
        async def answer(_: Request) -> Response:
            verdict = judge(observed)
            body = {
                "status": well if verdict.is_well else not_well,
                "reasons": [asdict(reason) for reason in verdict.reasons],
                **verdict.facts,
            }
            return Response(
                msgspec.json.encode(body),
                status_code=200 if verdict.is_well else 503,
                media_type="application/json",
            )

        return answer

    return [
        Route("/metrics", metrics),
        Route("/health", judged(liveness, "alive", "stuck")),
        Route("/ready", judged(readiness, "ready", "not ready")),
    ]
