"""Metrics of a separate server for Prometheus; a streamer has its own in ``streamer/health``.

Nothing is counted for them on the path of live data: the collector reads counters that exist.
``docs/serving.md`` explains each metric.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from fastapi import APIRouter, Request
from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.http.context import Context
from streamer.health.metrics import Declared

router = APIRouter(include_in_schema=False)

SERVING_METRICS = {
    "candelabra_serving_source_up": Declared(
        "gauge", "1 while the streamer or NATS delivers, else 0."
    ),
    "candelabra_serving_source_disconnects": Declared(
        "counter", "Connections to the streamer or NATS that ended."
    ),
    "candelabra_serving_symbols": Declared("gauge", "Symbols that are served live."),
    "candelabra_serving_requests": Declared(
        "counter", "Answered HTTP requests by status: 2xx, 3xx, 4xx, 5xx.", ("status",)
    ),
    "candelabra_serving_websockets": Declared("gauge", "Open WebSockets."),
    "candelabra_serving_websockets_accepted": Declared("counter", "WebSockets opened so far."),
    "candelabra_serving_refused": Declared(
        "counter",
        "WebSockets and gRPC calls refused to clients that had too many, by interface: "
        "websocket, grpc.",
        ("interface",),
    ),
    "candelabra_serving_subscriptions": Declared(
        "gauge", "Subscriptions by channel: candles, trades, book.", ("channel",)
    ),
    "candelabra_serving_conflated": Declared(
        "counter",
        "States of bars that newer ones replaced before a reader received them, by place: "
        "mailbox, websocket.",
        ("place",),
    ),
}
"""Metrics by name; the sample of a counter ends in ``_total``."""

Readings = Iterator[tuple[str, tuple[str, ...], float]]


class RequestCounter:
    """Counts answers by the first digit of their status."""

    def __init__(self, app: ASGIApp, counts: Counter[str]) -> None:
        self._app = app
        self._counts = counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Called by the server."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._counts[f"{message['status'] // 100}xx"] += 1
            await send(message)

        await self._app(scope, receive, send_counted)


class ServingCollector(Collector):
    """Reads an application when Prometheus scrapes.

    Args:
        counts: answers by status.
    """

    def __init__(self, context: Context, counts: Counter[str]) -> None:
        self._context = context
        self._counts = counts

    def describe(self) -> Iterable[Metric]:
        """Describe nothing: registering must not read the application."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics with their current values."""
        families = {
            name: (CounterMetricFamily if one.kind == "counter" else GaugeMetricFamily)(
                name, one.meaning, labels=one.labels
            )
            for name, one in SERVING_METRICS.items()
        }
        for name, labels, value in self._readings():
            families[f"candelabra_serving_{name}"].add_metric(labels, value)
        yield from families.values()

    def _readings(self) -> Readings:
        context = self._context
        source = context.statistics()
        yield "source_up", (), float(context.condition()["status"] == "well")
        yield "source_disconnects", (), source.get("disconnects", 0)
        yield "symbols", (), len(list(context.streamed()))
        for status in ("2xx", "3xx", "4xx", "5xx"):
            yield "requests", (status,), self._counts[status]
        yield "websockets", (), context.sockets.open
        yield "websockets_accepted", (), context.sockets.accepted
        for interface in ("websocket", "grpc"):
            yield "refused", (interface,), context.refused[interface]
        yield "subscriptions", ("candles",), context.live_bars.subscribers
        if (ticks := context.ticks) is not None:
            yield "subscriptions", ("trades",), ticks.trades.subscribers
            yield "subscriptions", ("book",), ticks.book_tickers.subscribers
            if (liquidations := ticks.liquidations) is not None:
                yield "subscriptions", ("liquidations",), liquidations.subscribers
        yield "conflated", ("mailbox",), context.live_bars.conflated
        yield "conflated", ("websocket",), context.sockets.conflated()


def registry_of(context: Context, counts: Counter[str]) -> CollectorRegistry:
    """The metrics of an application, its process and garbage collector."""
    registry = CollectorRegistry()
    registry.register(ServingCollector(context, counts))
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Counters for Prometheus, or OpenMetrics on request; all from memory."""
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    # Set as a header: the framework would add a second charset to a media type.
    return Response(
        encode(request.app.state.registry),
        headers={"content-type": content_type, "cache-control": "no-store"},
    )
