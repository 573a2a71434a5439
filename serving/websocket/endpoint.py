"""``/api/v1/ws``: live bars, prices and ticks over one connection for each reader."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Literal

import structlog
from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect, WebSocketState

from include.domain.timeframes import TIMEFRAMES, timeframe
from serving.auth.client_network import network_of
from serving.bars.live_bars import LiveBars
from serving.http.context import Context
from serving.http.encoded_frames import EXTENSION, Frames
from serving.problems import answer
from serving.websocket import messages
from serving.websocket.broadcaster import (
    BINARY_PRICES,
    CANDLES,
    PRICES,
    BarBroadcaster,
    BarBroadcasters,
    Listener,
    MessageFormat,
)
from serving.websocket.messages import (
    MAX_BYTES,
    MAX_SYMBOLS,
    Ping,
    RefusedMessage,
    Subscribe,
    Unsubscribe,
    control_message,
    decoded,
    id_of,
    names_left,
    names_of,
)
from serving.websocket.ticks import CHANNELS as TICK_CHANNELS
from serving.websocket.ticks import TickChannels

log = structlog.get_logger(__name__)
router = APIRouter()

MAX_MESSAGES_PER_S = 20
"""Messages from a reader, averaged over a second or two; faster ones are refused, and much faster
ones end the connection.
"""
MAX_REFUSED = 100
SEND_TIMEOUT_S = 30.0
"""Readers that read nothing for this long are disconnected."""
POLL_INTERVAL_S = 60.0
"""Fallback poll; task completion normally wakes us."""
PRICE: Literal["price"] = "price"
TOO_FAST = 1008
TOO_LARGE = 1009


@router.websocket("/ws")
async def websocket(socket: WebSocket) -> None:
    """Serve one reader."""
    context: Context = socket.app.state.context
    if not context.may_connect(socket.headers.get("origin"), socket.headers.get("host", "")):
        await socket.close(code=TOO_FAST, reason="this origin may not connect")
        return
    client = network_of(socket.client.host if socket.client else "").name
    if not context.sockets.has_room(client):
        context.refused["websocket"] += 1
        text = f"more than {context.sockets.max_per_client:,} connections; close one first"
        await socket.send_denial_response(answer(HTTPStatus.TOO_MANY_REQUESTS, text))
        return
    with context.sockets.counted(client):
        await socket.accept()
        await Reader(socket, context).run()


@dataclass(slots=True)
class _Channel:
    """A reader's subscription to one timeframe or to prices."""

    broadcaster: BarBroadcaster
    listener: Listener


class Reader:
    """A connection and its subscriptions."""

    def __init__(self, socket: WebSocket, context: Context) -> None:
        self._socket = socket
        self._context = context
        self._broadcasters: BarBroadcasters = socket.app.state.broadcasters
        self._channels: dict[str, _Channel] = {}
        """Subscriptions by timeframe, and ``price``."""
        self._ticks = TickChannels(context.ticks, self._send, self._gone)
        self._streamed = StreamedSymbols(
            context.live_bars, socket.scope["extensions"][EXTENSION], self._has_subscribed
        )
        self._sending = asyncio.Lock()
        self._subscribing = asyncio.Lock()
        """Serializes subscriptions from messages and from the watchlist."""
        self._allowance = float(MAX_MESSAGES_PER_S)
        self._last_message_s = 0.0
        self._refused = 0
        self._reading: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Serve the reader until it leaves or stops reading."""
        reading = self._reading = asyncio.create_task(self._read_messages(), name="reader")
        watching = asyncio.create_task(self._watch_list(), name="reader")
        try:
            while not reading.done():
                await asyncio.wait([reading], timeout=POLL_INTERVAL_S)
            if not reading.cancelled():
                reading.result()
        finally:
            reading.cancel()
            watching.cancel()
            for channel in self._channels.values():
                channel.broadcaster.remove(channel.listener, channel.listener.symbols)
            self._ticks.drop()
            self._streamed.leave()

    async def _read_messages(self) -> None:
        try:
            while True:
                message = await self._socket.receive()
                if message["type"] == "websocket.disconnect":
                    return
                text = message.get("text") or message.get("bytes") or b""
                if len(text) > MAX_BYTES:
                    await self._socket.close(TOO_LARGE, f"messages have {MAX_BYTES} bytes at most")
                    return
                try:
                    await self._handle(text)
                except RefusedMessage as refusal:
                    self._refused += 1
                    await self._send(
                        control_message(
                            "error", code=refusal.code, message=refusal.text, id=refusal.id
                        )
                    )
                    if self._refused > MAX_REFUSED:
                        await self._socket.close(TOO_FAST, "too many refused messages")
                        return
        except (WebSocketDisconnect, TimeoutError):
            return

    # --- from the reader

    async def _handle(self, text: str | bytes) -> None:
        now_s = asyncio.get_running_loop().time()
        self._allowance = min(
            MAX_MESSAGES_PER_S,
            self._allowance + (now_s - self._last_message_s) * MAX_MESSAGES_PER_S,
        )
        self._last_message_s = now_s
        if self._allowance < 1:
            raise RefusedMessage("too_fast", f"more than {MAX_MESSAGES_PER_S} messages a second")
        self._allowance -= 1
        message = decoded(text)
        if isinstance(message, Ping):
            await self._send(control_message("pong", id=message.id))
            return
        if message.channel in TICK_CHANNELS:
            await self._handle_tick_message(message)
            return
        name = PRICE if message.channel == PRICE else message.timeframe
        if name != PRICE and name not in TIMEFRAMES:
            raise RefusedMessage(
                "unknown_timeframe",
                f"{name[:16]!r} is none; should be one of {', '.join(TIMEFRAMES)}",
                message.id,
            )
        async with self._subscribing:
            if isinstance(message, Subscribe):
                await self._subscribe(message, name, names_of(message, self._context.streamed()))
            else:
                channel = self._channels.get(name)
                known = set() if channel is None else channel.listener.symbols
                await self._unsubscribe(message, name, names_left(message, known))

    async def _watch_list(self) -> None:
        """Send the principal's watchlist, and keep its prices subscribed as it changes.

        Symbols that are not streamed yet are subscribed as well.
        """
        principal = getattr(self._socket.state, "principal", None)
        if principal is None:
            return
        before: tuple[str, ...] = ()
        try:
            user_id = principal.identity.user_id
            async with contextlib.aclosing(self._context.auth.watchlists(user_id)) as lists:
                async for symbols in lists:
                    await self._send(control_message("watchlist", symbols=list(symbols)))
                    await self._take_list(
                        [one for one in symbols if one not in before],
                        [one for one in before if one not in symbols],
                    )
                    before = symbols
        except (WebSocketDisconnect, TimeoutError):
            self._gone()

    async def _take_list(self, fresh: list[str], gone: list[str]) -> None:
        async with self._subscribing:
            if gone:
                await self._unsubscribe(Unsubscribe(channel=PRICE, symbols=gone), PRICE, gone)
            if fresh:
                try:
                    await self._subscribe(Subscribe(channel=PRICE, symbols=fresh), PRICE, fresh)
                except RefusedMessage as refusal:
                    await self._send(
                        control_message("error", code=refusal.code, message=refusal.text)
                    )

    async def _handle_tick_message(self, message: Subscribe | Unsubscribe) -> None:
        if isinstance(message, Unsubscribe):
            known = self._ticks.symbols(message.channel)
            await self._ticks.unsubscribe(message, names_left(message, known))
            return
        names = names_of(message, self._context.streamed())
        self._find_room(len(self._ticks.fresh(message.channel, names)), message.id)
        await self._ticks.subscribe(message, names)

    def _find_room(self, fresh: int, id_: str | int | None) -> None:
        """Refuse more symbols than one connection may subscribe."""
        count = sum(len(one.listener.symbols) for one in self._channels.values())
        count += self._ticks.count
        if count + fresh > MAX_SYMBOLS:
            raise RefusedMessage(
                "too_many_symbols",
                f"{count} are subscribed and {fresh} more requested; "
                f"should be {MAX_SYMBOLS} at most",
                id_,
            )

    async def _subscribe(self, message: Subscribe, name: str, names: Sequence[str]) -> None:
        form = PRICES if name == PRICE else CANDLES
        channel = self._channels.get(name)
        known = set() if channel is None else channel.listener.symbols
        fresh = [one for one in names if one not in known]
        self._find_room(len(fresh), message.id)
        await self._send(
            control_message(
                "subscribed",
                channel=message.channel,
                symbols=list(names),
                timeframe=None if name == PRICE else name,
                id=message.id,
            )
        )
        if channel is None:
            channel = self._channels[name] = self._channel(name, form)
        if name == PRICE and message.format == "binary" and not channel.broadcaster.has_ids:
            fresh = [*sorted(known), *fresh]  # all prices are binary from now on
            channel.broadcaster.remove(channel.listener, known)
            channel = self._channels[name] = self._channel(name, BINARY_PRICES)
        listener = channel.listener
        if channel.broadcaster.has_ids:
            mailbox = [one for one in fresh if one not in listener.ids]
            numbers = {one: number for number, one in enumerate(mailbox, len(listener.ids))}
            listener.ids |= {one: id_of(number) for one, number in numbers.items()}
            if mailbox:
                await self._send(control_message("symbols", ids=numbers))
        await channel.broadcaster.add(listener, fresh)

    async def _unsubscribe(self, message: Unsubscribe, name: str, names: Sequence[str]) -> None:
        channel = self._channels.get(name)
        left: list[str] = []
        if channel is not None:
            left = [one for one in names if one in channel.listener.symbols]
            channel.broadcaster.remove(channel.listener, left)
            if not channel.listener.symbols:
                del self._channels[name]
        await self._send(
            control_message(
                "unsubscribed",
                channel=message.channel,
                symbols=left,
                timeframe=None if name == PRICE else name,
                id=message.id,
            )
        )

    # --- to the reader

    def _has_subscribed(self, symbol: str) -> bool:
        return any(symbol in one.listener.symbols for one in self._channels.values()) or any(
            symbol in self._ticks.symbols(name) for name in TICK_CHANNELS
        )

    def _channel(self, name: str, form: MessageFormat) -> _Channel:
        frame = timeframe("1m" if name == PRICE else name)
        listener = Listener(
            self._socket.scope["extensions"][EXTENSION],
            on_gone=self._gone,
            on_end=self._at_end,
            patience_s=SEND_TIMEOUT_S,
        )
        return _Channel(self._broadcasters.of(frame, form), listener)

    def _at_end(self) -> None:
        """Close the connection: nothing more will come."""
        if self._ending is None:
            self._ending = asyncio.create_task(self._end(), name="reader")

    async def _end(self) -> None:
        with contextlib.suppress(WebSocketDisconnect, TimeoutError):
            async with asyncio.timeout(SEND_TIMEOUT_S):
                if self._socket.client_state is WebSocketState.CONNECTED:
                    await self._socket.close(1001, "the market is no longer streamed")

    def _gone(self) -> None:
        """End a reader that has stopped reading."""
        if self._reading is not None:
            self._reading.cancel()

    async def _send(self, message: str) -> None:
        async with self._sending, asyncio.timeout(SEND_TIMEOUT_S):
            await self._socket.send_text(message)


class StreamedSymbols:
    """Reports dropped and added symbols to one reader, only the last event of each.

    Args:
        to: sends frames to the reader.
        wants: whether the reader has subscribed to a symbol.
    """

    def __init__(self, live_bars: LiveBars, to: Frames, wants: Callable[[str], bool]) -> None:
        self._live_bars = live_bars
        self._to = to
        self._wants = wants
        self._waiting: dict[str, bool] = {}
        """Whether it is streamed, by symbol."""
        self._is_deferred = False
        live_bars.on_streamed_changed.add(self._on_changed)

    def leave(self) -> None:
        """Stop reporting."""
        self._live_bars.on_streamed_changed.discard(self._on_changed)
        self._waiting = {}

    def _on_changed(self, dropped: frozenset[str], taken_up: frozenset[str]) -> None:
        changed = dict.fromkeys(dropped, False) | dict.fromkeys(taken_up, True)
        self._waiting |= {name: value for name, value in changed.items() if self._wants(name)}
        self._send()

    def _send(self) -> None:
        if not self._waiting or self._is_deferred:
            return
        if not self._to.is_writable():
            self._is_deferred = True
            self._to.call_when_writable(self._go_on)
            return
        waiting, self._waiting = self._waiting, {}
        message = control_message(
            "streamed",
            taken_up=sorted(name for name, is_streamed in waiting.items() if is_streamed),
            dropped=sorted(name for name, is_streamed in waiting.items() if not is_streamed),
        )
        self._to.write_frames(messages.framed(messages.TEXT, message.encode()))

    def _go_on(self) -> None:
        self._is_deferred = False
        self._send()
