"""The HTTP application: REST under ``/api/v1``, and its description."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware

from include import __version__
from serving.auth.middleware import AuthMiddleware
from serving.auth.service import AuthService
from serving.bars.day_prices import DayPriceCache
from serving.bars.live_bars import LiveBars
from serving.http.context import SOCKETS_PER_CLIENT, Context
from serving.http.description import describe
from serving.http.limits import RateLimiter, RateLimitMiddleware
from serving.http.login_limits import LoginLimits
from serving.http.routes import (
    accounts,
    analytics,
    books,
    candles,
    health,
    liquidations,
    page,
    symbols,
    trades,
)
from serving.http.routes import statistics as statistics_
from serving.metrics import RequestCounter, registry_of
from serving.metrics import router as metrics_router
from serving.problems import add_problems
from serving.read_pool import ReadPool
from serving.udf import routes as udf
from serving.websocket import endpoint as websocket
from serving.websocket.broadcaster import BarBroadcasters
from streamer.hub.subscription import CandleUpdate
from streamer.hub.trade_hub import TickHubs

MIN_ZIPPED_BYTES = 1_024
DESCRIPTION = """
Candles of Binance's markets, live and of the past. Decimals are text, exactly as the exchange has
them; times are UTC. Errors are problem details (RFC 9457).
"""


def create_app(
    live_bars: LiveBars,
    history: ReadPool,
    *,
    streamed: Callable[[], Iterable[str]],
    now_us: Callable[[], int],
    newest: Callable[[str], CandleUpdate | None],
    condition: Callable[[], dict[str, Any]],
    prices: DayPriceCache,
    ticks: TickHubs | None = None,
    statistics: Callable[[], dict[str, Any]] = dict,
    auth: AuthService | None = None,
    is_remote: bool = False,
    allowed_origins: Sequence[str] = (),
    requests_per_minute: int,
    sockets_per_client: int = SOCKETS_PER_CLIENT,
    refused: Counter[str] | None = None,
) -> FastAPI:
    """Build the HTTP application.

    Args:
        streamed: returns the streamed symbols.
        now_us: returns the exchange's time.
        newest: returns the newest minute of a symbol; None if none is in memory.
        prices: prices of the last 24 hours.
        ticks: trades and best prices; None if they are not served.
        statistics: returns the market's figures.
        condition: returns the market's health: ``status`` ("well" or not), and details.
        auth: authenticates requests; None: everyone may read, without accounts.
        is_remote: the market comes from another process.
        allowed_origins: other sites whose pages may send requests.
        requests_per_minute: maximum requests of a client in a minute.
        sockets_per_client: maximum WebSocket connections of a client.
        refused: counts what was refused to clients with too many, by interface.
    """
    app = FastAPI(
        title="Candelabra",
        version=__version__,
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/v1/openapi.json",
    )
    app.state.context = Context(
        live_bars, history, streamed, now_us, newest, condition, prices, time.monotonic,
        frozenset(allowed_origins), ticks=ticks, statistics=statistics,
        is_remote=is_remote,
    )  # fmt: skip
    app.state.context.auth = auth = auth or AuthService()
    app.state.context.sockets.max_per_client = sockets_per_client
    if refused is not None:
        app.state.context.refused = refused
    app.state.broadcasters = broadcasters = BarBroadcasters(live_bars)
    app.state.context.sockets.conflated = lambda: broadcasters.conflated
    app.state.login_limits = LoginLimits()
    add_problems(app)
    app.add_middleware(GZipMiddleware, minimum_size=MIN_ZIPPED_BYTES, compresslevel=4)
    app.add_middleware(AuthMiddleware, auth=auth)
    app.add_middleware(RateLimitMiddleware, limit=RateLimiter(requests_per_minute))
    if allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(allowed_origins),
            allow_methods=["GET"],
            allow_headers=["authorization"],
            expose_headers=["etag", "x-next-cursor", "retry-after"],
        )
    for router in (
        accounts.router,
        health.router,
        symbols.router,
        candles.router,
        trades.router,
        books.router,
        liquidations.router,
        statistics_.router,
        analytics.router,
        websocket.router,
    ):
        app.include_router(router, prefix="/api/v1")
    app.include_router(udf.router)
    if is_remote:  # a streamer has /metrics on another port
        counts: Counter[str] = Counter()
        app.state.registry = registry_of(app.state.context, counts)
        app.add_middleware(RequestCounter, counts=counts)
        app.include_router(metrics_router)
    app.include_router(page.router)
    describe(app)
    return app
