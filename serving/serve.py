"""Serves a market over gRPC, REST and WebSocket, from a streamer or a separate process."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog

from include.config import API_PORT, Settings
from include.store.candles.bars import read_parts
from serving.app import create_app
from serving.auth.service import AuthService
from serving.bars.day_prices import DayPriceCache
from serving.bars.live_bars import LiveBars
from serving.grpc.market_data import MarketData
from serving.grpc.server import grpc_serving
from serving.http.server import Place, is_loopback, serving
from serving.read_pool import ReadPool
from serving.sources.nats.publisher import nats_publisher
from streamer.health.probes import condition
from streamer.health.statistics import statistics
from streamer.health.telemetry import TelemetrySources
from streamer.hub.book_tickers import stream_book_tickers
from streamer.hub.liquidations import stream_liquidations
from streamer.hub.subscription import CandleUpdate, Changes
from streamer.hub.trade_hub import TickHubs

log = structlog.get_logger(__name__)

STOP_TIMEOUT_S = 2.0
POLL_INTERVAL_S = 60.0
"""Fallback poll; task completion normally wakes us."""
MAX_CONNECTIONS = 10_000
"""Concurrent clients of REST and WebSocket."""


@dataclass(frozen=True, slots=True)
class ServedMarket:
    """Where served data comes from.

    Attributes:
        changes: subscribes to all symbols; the present states come first, and which symbols are
            streamed.
        streamed: returns the streamed symbols.
        now_us: returns the exchange's time.
        newest: returns the newest minute of a symbol; None if none is in memory.
        condition: returns its health: ``status`` ("well" or not), and details.
        on_closed: sets the function that is called with each closed or revised minute.
        is_remote: the changes come from another process, and are always subscribed.
        ticks: trades and book tickers; None if they are not served.
        statistics: returns figures of the source.
    """

    changes: Callable[[], Changes]
    streamed: Callable[[], Iterable[str]]
    now_us: Callable[[], int]
    newest: Callable[[str], CandleUpdate | None]
    condition: Callable[[], dict[str, Any]]
    on_closed: Callable[[Callable[[CandleUpdate], None]], None]
    is_remote: bool = False
    ticks: TickHubs | None = None
    statistics: Callable[[], dict[str, Any]] = dict

    def forget(self, symbols: Iterable[str]) -> None:
        """Forget the book tickers of symbols that are no longer streamed."""
        if self.ticks is not None:
            self.ticks.book_tickers.forget(symbols)


@dataclass(frozen=True, slots=True)
class Served:
    """Addresses of the servers.

    Attributes:
        grpc_address: host and port; empty if it is disabled.
        api_url: of REST; empty if it is disabled.
        listening: ends when the changes end or fail.
    """

    live_bars: LiveBars
    grpc_address: str
    api_url: str
    listening: asyncio.Task[None]


@asynccontextmanager
async def served(settings: Settings, market: ServedMarket, *, url: str) -> AsyncIterator[Served]:
    """Serve a market as the settings say.

    Args:
        url: of PostgreSQL; a read-only role is enough.

    Raises:
        PermanentError: an address or port is unavailable, or a file cannot be read.
    """
    history = ReadPool(url)
    live_bars = LiveBars(
        market.changes,
        lambda symbol, newest_us: history.read(
            lambda connection: read_parts(
                connection, symbol, newest_us, since_us=live_bars.since_us(symbol)
            )
        ),
        is_always_on=market.is_remote,
        on_dropped=market.forget,
    )
    history.open()
    auth = _auth(settings)
    auth.open()
    warn_of_open_addresses(settings)
    prices = DayPriceCache(
        history, streamed=market.streamed, newest=market.newest, now_us=market.now_us
    )
    market.on_closed(prices.candle_closed)
    refused: Counter[str] = Counter()
    listening = asyncio.create_task(live_bars.run(), name="board")
    reading = asyncio.create_task(prices.run(), name="prices")
    hearing = asyncio.create_task(auth.run(), name="access")
    try:
        async with AsyncExitStack() as stack:
            yield Served(
                live_bars,
                await stack.enter_async_context(
                    _grpc(settings, market, live_bars, history, auth, refused)
                ),
                await stack.enter_async_context(
                    _api(settings, market, live_bars, history, prices, auth, refused)
                ),
                listening,
            )
    finally:
        works = [listening, reading, hearing]
        for task in works:
            task.cancel()
        await asyncio.wait(works, timeout=STOP_TIMEOUT_S)
        history.close()
        auth.close()


async def serve_hub(
    settings: Settings, observed: TelemetrySources, now_us: Callable[[], int]
) -> None:
    """Serve a streamer's market in its event loop, until cancelled."""
    hub = observed.hub
    market = ServedMarket(
        partial(hub.subscribe, reports_streamed=True),
        streamed=lambda: hub.symbols,
        now_us=now_us,
        newest=hub.newest,
        condition=lambda: condition(observed),
        on_closed=lambda tell: setattr(hub, "on_closed", tell),
        ticks=observed.ticks,
        statistics=lambda: statistics(observed),
    )
    url = settings.serving_database_url or settings.reader_database_url
    url = url or settings.url_for("streamer")
    async with served(settings, market, url=url) as serving:
        observed.grpc_address, observed.api_url = serving.grpc_address, serving.api_url
        ticks = observed.ticks
        book_tickers = stream_book_tickers(settings, ticks.book_tickers)
        works = [serving.listening, asyncio.create_task(book_tickers.run(), name="book_tickers")]
        if ticks.liquidations is not None:
            liquidations = stream_liquidations(settings, ticks.liquidations)
            works.append(asyncio.create_task(liquidations.run(), name="liquidations"))
        if settings.nats_url:
            observed.publisher = nats_publisher(
                settings, serving.live_bars, observed.ticks, streamed=market.streamed
            )
            works.append(asyncio.create_task(observed.publisher.run(), name="bus"))
        try:
            done: set[asyncio.Task[None]] = set()
            while not done:  # a stop that takes long must not be cancelled again
                done, _ = await asyncio.wait(
                    works, timeout=POLL_INTERVAL_S, return_when=asyncio.FIRST_COMPLETED
                )
            for one in done:
                one.result()
        finally:
            for one in works[1:]:
                one.cancel()
            await asyncio.wait(works[1:], timeout=STOP_TIMEOUT_S)


def warn_of_open_addresses(settings: Settings) -> None:
    """Warn of addresses at which other machines may read without a login."""
    places = (
        ("API_HOST", settings.api, settings.api_host),
        ("GRPC_HOST", settings.grpc, settings.grpc_host),
    )
    for setting, is_served, host in places:
        if is_served and not settings.auth_required and not is_loopback(host):
            log.warning("served_without_login", setting=setting, host=host)


def _auth(settings: Settings) -> AuthService:
    """Build the authentication.

    Raises:
        PermanentError: accounts are required, and no database is configured.
    """
    return AuthService(
        settings.accounts_database_url or settings.database_url,
        is_required=settings.auth_required,
        session_s=settings.session_hours * 3_600.0,
    )


@asynccontextmanager
async def _grpc(
    settings: Settings,
    market: ServedMarket,
    live_bars: LiveBars,
    history: ReadPool,
    auth: AuthService,
    refused: Counter[str],
) -> AsyncIterator[str]:
    if not settings.grpc:
        yield ""
        return
    service = MarketData(
        live_bars, history, streamed=market.streamed, now_us=market.now_us, ticks=market.ticks
    )
    async with grpc_serving(
        service,
        host=settings.grpc_host,
        port=settings.grpc_port,
        certificate=settings.grpc_tls_cert_file,
        key=settings.grpc_tls_key_file,
        auth=auth,
        calls_per_client=settings.grpc_calls_per_client,
        on_refused=lambda: refused.update(["grpc"]),
    ) as address:
        yield address


@asynccontextmanager
async def _api(
    settings: Settings,
    market: ServedMarket,
    live_bars: LiveBars,
    history: ReadPool,
    prices: DayPriceCache,
    auth: AuthService,
    refused: Counter[str],
) -> AsyncIterator[str]:
    if not settings.api:
        yield ""
        return
    app = create_app(
        live_bars,
        history,
        streamed=market.streamed,
        now_us=market.now_us,
        newest=market.newest,
        condition=market.condition,
        prices=prices,
        auth=auth,
        ticks=market.ticks,
        statistics=market.statistics,
        is_remote=market.is_remote,
        allowed_origins=settings.api_allowed_origins,
        requests_per_minute=settings.api_requests_per_minute,
        sockets_per_client=settings.api_sockets_per_client,
        refused=refused,
    )
    place = Place(
        settings.api_host,
        settings.api_port,
        usual_port=API_PORT,
        setting="API",
        max_connections=MAX_CONNECTIONS,
        has_websockets=True,
        trusted_proxies=settings.trusted_proxies,
    )
    async with serving(app, place) as url:
        yield url
