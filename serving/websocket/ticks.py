"""The channels ``trades``, ``book`` and ``liquidations`` of a WebSocket.

Each has a subscription and a task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.websockets import WebSocketDisconnect

from serving.websocket.messages import (
    RefusedMessage,
    Subscribe,
    Unsubscribe,
    book_tickers_of,
    control_message,
    liquidations_of,
    missed_liquidations_of,
    missed_trades_of,
    trades_of,
)
from streamer.hub.trade_hub import BookTickerHub, FullError, LiquidationHub, TickHubs, TradeHub

BATCH_S = 0.05
"""Time for which ticks are gathered for one message."""
TRADES = "trades"
BOOK = "book"
LIQUIDATIONS = "liquidations"
CHANNELS = frozenset({TRADES, BOOK, LIQUIDATIONS})
_ENCODE: dict[str, Callable[[Any], str]] = {
    TRADES: trades_of,
    BOOK: book_tickers_of,
    LIQUIDATIONS: liquidations_of,
}


@dataclass(slots=True)
class _TickChannel:
    name: str
    hub: Any
    subscription: Any
    task: asyncio.Task[None] | None = None


class TickChannels:
    """One reader's subscriptions to ticks.

    Args:
        hubs: None if ticks are not served.
        send: sends a message to the reader; may raise if the reader is gone.
        on_gone: called when the reader has stopped reading.
    """

    def __init__(
        self,
        hubs: TickHubs | None,
        send: Callable[[str], Awaitable[None]],
        on_gone: Callable[[], None],
    ) -> None:
        self._hubs = hubs
        self._send = send
        self._on_gone = on_gone
        self._channels: dict[str, _TickChannel] = {}

    @property
    def count(self) -> int:
        """Symbols, over all these channels."""
        return sum(len(one.subscription.symbols) for one in self._channels.values())

    def symbols(self, channel: str) -> frozenset[str]:
        """The subscribed symbols of a channel."""
        found = self._channels.get(channel)
        return frozenset() if found is None else frozenset(found.subscription.symbols)

    def fresh(self, channel: str, names: Sequence[str]) -> list[str]:
        """Return the names that are not subscribed yet."""
        known = self.symbols(channel)
        return [one for one in names if one not in known]

    async def subscribe(self, message: Subscribe, names: Sequence[str]) -> None:
        """Subscribe to further symbols.

        Raises:
            RefusedMessage: that is impossible.
        """
        hub = self._hub(message)
        if message.format != "json":
            raise RefusedMessage(
                "wrong_field", "format: binary is of the channel price", message.id
            )
        channel = self._channels.get(message.channel) or _TickChannel(
            message.channel, hub, hub.subscribe()
        )
        try:
            hub.add_symbols(channel.subscription, names)
        except FullError as error:
            if message.channel not in self._channels:
                channel.subscription.unsubscribe()
            raise RefusedMessage("too_many_symbols", str(error), message.id) from None
        self._channels[message.channel] = channel
        await self._send(
            control_message(
                "subscribed", channel=message.channel, symbols=list(names), id=message.id
            )
        )
        if channel.task is None:
            channel.task = asyncio.create_task(self._send_ticks(channel), name="reader")

    async def unsubscribe(self, message: Unsubscribe, names: Sequence[str]) -> None:
        """Unsubscribe from symbols."""
        channel = self._channels.get(message.channel)
        left = (
            [] if channel is None else [one for one in names if one in channel.subscription.symbols]
        )
        if channel is not None:
            channel.hub.remove_symbols(channel.subscription, left)
            if not channel.subscription.symbols:
                self._drop(message.channel)
        await self._send(
            control_message("unsubscribed", channel=message.channel, symbols=left, id=message.id)
        )

    def drop(self) -> None:
        """Unsubscribe from everything."""
        for name in list(self._channels):
            self._drop(name)

    # --- inside

    def _hub(self, message: Subscribe) -> TradeHub | BookTickerHub | LiquidationHub:
        hubs = self._hubs
        if message.channel == LIQUIDATIONS:
            if hubs is None or hubs.liquidations is None:
                raise RefusedMessage(
                    "not_served", "liquidations are not served here; ask a streamer", message.id
                )
            return hubs.liquidations
        if hubs is None:
            raise RefusedMessage(
                "not_served",
                f"{message.channel} are not served here; ask a streamer, or a server that is "
                "attached to one by gRPC",
                message.id,
            )
        return hubs.trades if message.channel == TRADES else hubs.book_tickers

    async def _send_ticks(self, channel: _TickChannel) -> None:
        """Send ticks as fast as the reader reads."""
        encode = _ENCODE[channel.name]
        encode_missed: Callable[[Any], str] = (
            missed_liquidations_of if channel.name == LIQUIDATIONS else missed_trades_of
        )
        subscription = channel.subscription
        try:
            while (found := await subscription.receive()) is not None:
                if found.missed:
                    await self._send(encode_missed(found.missed))
                if found.ticks:
                    await self._send(encode(found.ticks))
                if subscription.waiting < len(found.ticks):
                    await asyncio.sleep(BATCH_S)
        except (WebSocketDisconnect, TimeoutError):
            self._on_gone()

    def _drop(self, name: str) -> None:
        channel = self._channels.pop(name)
        channel.subscription.unsubscribe()
        if channel.task is not None:
            channel.task.cancel()
