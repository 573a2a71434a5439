"""A separate serving process, so that readers do not load the streamer."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import structlog

from include.config import Settings
from include.errors import PermanentError
from serving.serve import ServedMarket, served
from serving.sources.nats.market import NatsMarket, nats_market
from serving.sources.nats.ticks import NatsTicks
from serving.sources.remote.market import RemoteMarket
from serving.sources.remote.ticks import RemoteTicks
from streamer.hub.trade_hub import TickHubs
from streamer.runtime.garbage import collect_seldom

log = structlog.get_logger(__name__)

STOP_TIMEOUT_S = 2.0

POLL_INTERVAL_S = 60.0
"""Fallback poll; task completion normally wakes us."""


@dataclass(frozen=True, slots=True)
class ServedSource:
    """Source of a served market.

    Attributes:
        place: description of the source for people.
        works: coroutines that run while the market is served.
    """

    market: ServedMarket
    place: str
    works: list[Coroutine[Any, Any, None]]


async def serve(settings: Settings, address: str, stop: asyncio.Event) -> None:
    """Serve the candles that streamers publish, until stopped.

    Args:
        address: gRPC address of a streamer; empty for all streamers that publish over NATS.

    Raises:
        PermanentError: a setting is wrong, or the streamer refuses.
    """
    async with (
        _streamer(settings, address) if address else _nats(settings) as source,
        served(settings, source.market, url=settings.url_for("serving")) as serving,
    ):
        collect_seldom()
        log.info("serving", source=source.place, grpc=serving.grpc_address, api=serving.api_url)
        stopping = asyncio.create_task(stop.wait())
        running = [asyncio.create_task(one) for one in source.works]
        works = [stopping, *running, serving.listening]
        try:
            while not any(one.done() for one in works):
                await asyncio.wait(
                    works, timeout=POLL_INTERVAL_S, return_when=asyncio.FIRST_COMPLETED
                )
        finally:
            for one in (stopping, *running):
                one.cancel()
            await asyncio.wait([stopping, *running], timeout=STOP_TIMEOUT_S)
        for one in running:
            if one.done() and not one.cancelled():
                one.result()
        if serving.listening.done():
            serving.listening.result()  # raises what ended it
            raise PermanentError(f"{source.place} has ended its stream")


@asynccontextmanager
async def _streamer(settings: Settings, address: str) -> AsyncIterator[ServedSource]:
    """Build the market of a streamer, or of another server, from its gRPC."""
    remote = RemoteMarket(
        address, certificate=settings.grpc_trusted_file, token=settings.streamer_token
    )
    ticks = RemoteTicks(remote.stub, metadata=remote.metadata)

    def statistics() -> dict[str, Any]:
        return {
            "streamer": address,
            "is_connected": remote.is_connected,
            "disconnects": remote.disconnects,
            "tick_disconnects": ticks.disconnects,
            "symbols": len(remote.streamed()),
        }

    market = _market(remote, ticks.hubs, statistics)
    try:
        yield ServedSource(market, f"the streamer at {address}", [ticks.run()])
    finally:
        await remote.close()


@asynccontextmanager
async def _nats(settings: Settings) -> AsyncIterator[ServedSource]:
    """Build the market of all streamers that publish over NATS."""
    ticks = NatsTicks()
    remote = nats_market(settings, beside=ticks.session)
    market = _market(remote, ticks.hubs, remote.statistics)
    yield ServedSource(market, f"NATS at {remote.nats.hosts}", [remote.run()])


def _market(
    remote: RemoteMarket | NatsMarket, ticks: TickHubs, statistics: Callable[[], dict[str, Any]]
) -> ServedMarket:
    """Build the market of another process."""
    return ServedMarket(
        remote.changes,
        streamed=remote.streamed,
        now_us=remote.now_us,
        newest=remote.newest,
        condition=remote.condition,
        on_closed=remote.listen_closed,
        is_remote=True,
        ticks=ticks,
        statistics=statistics,
    )


def run(settings: Settings, address: str) -> None:
    """Run on uvloop until SIGTERM or SIGINT; blocking."""
    import uvloop

    async def until_stopped() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await serve(settings, address, stop)

    uvloop.run(until_stopped())
