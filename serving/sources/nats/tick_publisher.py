"""Publishes a streamer's trades and book tickers while servers want them.

Servers repeat what their readers subscribe to; what they no longer repeat expires.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import structlog
from google.protobuf.message import DecodeError
from nats.aio.client import Client
from nats.aio.msg import Msg

from serving.protobuf.generated.candelabra.v1 import bus_pb2 as bus
from serving.sources.nats.connection import first_ended, flushed
from serving.sources.nats.wire import (
    WANTED,
    WANTED_INTERVAL_S,
    TradeMessageEncoder,
    UnreadableMessages,
    encode_book_tickers,
)
from streamer.hub.ticks import (
    BATCH_TICKS,
    BookTickerSubscription,
    BookTickerUpdate,
    MissedTrades,
    Ticks,
    TickSubscription,
    TradeSubscription,
    TradeTick,
)
from streamer.hub.trade_hub import FullError, TickHubs

log = structlog.get_logger(__name__)

LEASE_S = 4 * WANTED_INTERVAL_S
"""Time for which a server's subscriptions stay valid after its last message."""
MAX_SERVERS = 1_000
GATHER_S = 0.02
"""Minimum pause between two batches."""


Tick = TypeVar("Tick", TradeTick, BookTickerUpdate)


@dataclass(frozen=True, slots=True)
class _Lease:
    trades: frozenset[str]
    book_tickers: frozenset[str]
    until_s: float


class TickPublisher:
    """Publishes the ticks of streamed symbols that servers want."""

    def __init__(
        self,
        hubs: TickHubs,
        *,
        streamed: Callable[[], Iterable[str]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._hubs = hubs
        self._streamed = streamed
        self._clock = clock
        self._leases: dict[str, _Lease] = {}
        self._changed = asyncio.Event()
        self._is_full = False
        self._book_tickers: BookTickerSubscription | None = None
        self._unreadable = UnreadableMessages()

    async def session(self, client: Client, streamer: str, connection: int) -> None:
        """Publish over one connection."""
        await client.subscribe(WANTED, cb=self._on_wanted, pending_msgs_limit=10_000)
        encoder = TradeMessageEncoder(streamer, connection)
        with (
            self._hubs.trades.subscribe() as trades,
            self._hubs.book_tickers.subscribe() as book_tickers,
        ):
            self._book_tickers = book_tickers
            await first_ended(
                _publish(client, trades, encoder.trades),
                _publish(client, book_tickers, encode_book_tickers),
                self._follow(trades, book_tickers),
            )

    async def _on_wanted(self, message: Msg) -> None:
        try:
            request = bus.Wanted.FromString(message.data)
        except DecodeError as error:
            self._unreadable.note(message.subject, error)
            return
        before = self._leases.get(request.server)
        if before is None and len(self._leases) >= MAX_SERVERS:
            return
        lease = _Lease(
            frozenset(request.trades), frozenset(request.book_tickers), self._clock() + LEASE_S
        )
        self._leases[request.server] = lease
        if before is None or (before.trades, before.book_tickers) != (
            lease.trades,
            lease.book_tickers,
        ):
            self._changed.set()
        self._publish_present(lease.book_tickers - (before.book_tickers if before else frozenset()))

    def _publish_present(self, fresh: Iterable[str]) -> None:
        """Send present book tickers to a further server."""
        for symbol in fresh:
            newest = self._hubs.book_tickers.newest(symbol)
            if (
                self._book_tickers is not None
                and newest is not None
                and symbol in self._book_tickers.symbols
            ):
                self._book_tickers.publish(newest)

    async def _follow(
        self, trades: TradeSubscription, book_tickers: BookTickerSubscription
    ) -> None:
        """Subscribe to the wanted symbols, as they change."""
        while True:
            self._changed.clear()
            now_s = self._clock()
            self._leases = {
                server: one for server, one in self._leases.items() if one.until_s > now_s
            }
            streamed = frozenset(self._streamed())
            leases = self._leases.values()
            wanted = streamed.intersection(frozenset().union(*(one.trades for one in leases)))
            self._hubs.trades.remove_symbols(trades, trades.symbols - wanted)
            self._hubs.trades.add_symbols(trades, wanted)
            wanted = streamed.intersection(frozenset().union(*(one.book_tickers for one in leases)))
            self._hubs.book_tickers.remove_symbols(book_tickers, book_tickers.symbols - wanted)
            self._add_book_tickers(book_tickers, wanted)
            try:
                async with asyncio.timeout(WANTED_INTERVAL_S):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _add_book_tickers(
        self, book_tickers: BookTickerSubscription, wanted: Iterable[str]
    ) -> None:
        was_full, self._is_full = self._is_full, False
        for symbol in sorted(wanted):
            try:
                self._hubs.book_tickers.add_symbols(book_tickers, [symbol])
            except FullError as error:
                self._is_full = True
                if not was_full:
                    log.warning("book_tickers_not_published", symbol=symbol, error=str(error))
                return


async def _publish(
    client: Client,
    subscription: TickSubscription[Tick, MissedTrades],
    messages: Callable[[Ticks[Tick, MissedTrades]], list[tuple[str, bytes]]],
) -> None:
    while (ticks := await subscription.receive(BATCH_TICKS)) is not None:
        for subject, payload in messages(ticks):
            await client.publish(subject, payload)
        await flushed(client)
        await asyncio.sleep(GATHER_S)
