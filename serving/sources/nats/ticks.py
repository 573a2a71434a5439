"""Receives trades and book tickers over NATS for the readers of a server.

It publishes what the readers subscribe to, and subscribes to just that. Message numbers reveal
losses; trade ids reveal trades that two streamers publish.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Awaitable, Callable

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from serving.protobuf.generated.candelabra.v1 import bus_pb2 as bus
from serving.protobuf.generated.candelabra.v1 import market_data_pb2 as pb
from serving.sources.nats.wire import (
    UNREADABLE,
    WANTED,
    WANTED_INTERVAL_S,
    UnreadableMessages,
    book_tickers_subject,
    check_symbol,
    check_time,
    check_trade,
    trades_subject,
    wanted,
)
from serving.sources.received_ticks import ReceivedTicks

MAX_REMEMBERED_IDS = 1_024
"""Remembered ids of each symbol, to drop what a second streamer publishes."""
MAX_PENDING = 16_384
"""Messages of a symbol that may wait in the client."""

Take = Callable[[Msg], Awaitable[None]]


class NatsTicks:
    """Hubs that are fed over NATS."""

    def __init__(self) -> None:
        self.received = ReceivedTicks()
        self.hubs = self.received.hubs
        self._server = secrets.token_hex(8)
        self._unreadable = UnreadableMessages()
        self._changed = asyncio.Event()
        self.hubs.trades.on_wanted = self._changed.set
        self.hubs.book_tickers.on_wanted = self._changed.set
        self._numbers: dict[tuple[str, str], tuple[int, int]] = {}
        """Connection and sequence of the last message, by subject and streamer."""
        self._ids: dict[str, tuple[deque[int], set[int]]] = {}
        """Ids of the newest trades, by symbol."""

    async def session(self, client: Client) -> None:
        """Receive what is wanted over one connection."""
        subscribed: dict[str, Subscription] = {}
        self._numbers.clear()  # messages between two connections are lost
        while True:
            self._changed.clear()
            trades, book_tickers = (
                sorted(self.hubs.trades.wanted),
                sorted(self.hubs.book_tickers.wanted),
            )
            callbacks: dict[str, Take] = {trades_subject(one): self._on_trades for one in trades}
            callbacks |= {book_tickers_subject(one): self._on_book_tickers for one in book_tickers}
            for subject in subscribed.keys() - callbacks.keys():
                await subscribed.pop(subject).unsubscribe()
            for subject in callbacks.keys() - subscribed.keys():
                subscribed[subject] = await client.subscribe(
                    subject, cb=callbacks[subject], pending_msgs_limit=MAX_PENDING
                )
            for symbol in self._ids.keys() - set(trades):
                del self._ids[symbol]
            for key in [one for one in self._numbers if one[0] not in callbacks]:
                del self._numbers[key]
            await client.publish(WANTED, wanted(self._server, trades, book_tickers))
            try:
                async with asyncio.timeout(WANTED_INTERVAL_S):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _on_trades(self, message: Msg) -> None:
        try:
            published = bus.PublishedTrades.FromString(message.data)
            for trade in published.trades:
                check_trade(trade)
            for missed in published.missed:
                check_symbol(missed.symbol)
                check_time(missed.from_time, missed.to_time)
        except UNREADABLE as error:
            self._unreadable.note(message.subject, error)
            return
        key, number = (
            (message.subject, published.streamer),
            (published.connection, published.sequence),
        )
        before = self._numbers.get(key)
        self._numbers[key] = number
        fresh = [one for one in published.trades if self._is_new(one)]
        self.received.trades(
            fresh,
            published.missed,
            is_broken=before != (published.connection, published.sequence - 1),
        )

    async def _on_book_tickers(self, message: Msg) -> None:
        try:
            published = pb.StreamBookTickersResponse.FromString(message.data)
            for one in published.book_tickers:
                check_symbol(one.symbol)
                check_time(one.event_time, one.received_time)
        except UNREADABLE as error:
            self._unreadable.note(message.subject, error)
            return
        self.received.book_tickers(published)

    def _is_new(self, trade: pb.Trade) -> bool:
        """Whether no other streamer has published a trade."""
        order, known = self._ids.setdefault(trade.symbol, (deque(), set()))
        if trade.id in known:
            return False
        order.append(trade.id)
        known.add(trade.id)
        if len(order) > MAX_REMEMBERED_IDS:
            known.discard(order.popleft())
        return True
