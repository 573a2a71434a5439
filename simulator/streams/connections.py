"""WebSocket server of a market: a thin shell around websockets' sans-I/O protocol.

Stream frames bypass the protocol object: each is encoded once and written to all connections.
Handshake, control frames and client messages go through it.
"""

import asyncio
import math
import select
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable
from typing import cast

import structlog
from websockets.exceptions import InvalidState
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from simulator.clock import SECOND_US, SimulatedClock
from simulator.config import SimulatorConfig
from simulator.market.instruments import MarketName
from simulator.streams.client_limits import (
    CONNECT_WINDOW_S,
    MESSAGE_WINDOW_S,
    ConnectLimit,
    MessageRate,
    OpenPings,
)
from simulator.streams.hub import FrameHub, encode_text_frame
from simulator.streams.protocol import PathError, StreamSession, StreamTarget, parse_target

_POLICY_VIOLATION = 1008
_GOING_AWAY = 1001
_CLOSE_TIMEOUT_S = 1.0
_STALL_POLL_INTERVAL_S = 0.2
_GONE = select.POLLRDHUP | select.POLLHUP | select.POLLERR
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # linger for no time
_MIN_PING_INTERVAL_S = 0.5
_MESSAGE_LIMITS: dict[MarketName, int] = {"spot": 5, "um": 10, "cm": 10}
_PING_INTERVALS_S: dict[MarketName, int] = {"spot": 20, "um": 180, "cm": 180}
_PONG_TIMEOUTS_S: dict[MarketName, int] = {"spot": 60, "um": 600, "cm": 600}


class StreamServer:
    """All connections of one market's port.

    Attributes:
        min_ping_interval_s: lower bound of real seconds between pings, for fast clocks.
        message_window_s: real seconds in which inbound messages are counted.
        refusal: while set, new connections are refused: fault id, and HTTP status of the answer;
            None as status resets the TCP connection.
        refused: refused connections by fault id.
        withheld_us: due times, from and to, of frames that stalled connections lost.
    """

    def __init__(
        self, market: MarketName, hub: FrameHub, clock: SimulatedClock, config: SimulatorConfig
    ) -> None:
        self.market = market
        self.hub = hub
        self.clock = clock
        self.config = config
        self.connections: set[ClientConnection] = set()
        self.refusal: tuple[str | None, int | None] | None = None
        self.refused: Counter[str | None] = Counter()
        self.withheld_us: list[tuple[int, int]] = []
        self.min_ping_interval_s = _MIN_PING_INTERVAL_S
        self.message_window_s = MESSAGE_WINDOW_S
        window_s = CONNECT_WINDOW_S * self._scale()
        self._connects = ConnectLimit(config.connects_in_5_minutes, window_s=window_s)
        self.log = structlog.get_logger("simulator").bind(market=market)

    def accept(self) -> "ClientConnection":
        """Return a protocol for a new TCP connection (factory of `loop.create_server`)."""
        return ClientConnection(self)

    @property
    def message_limit(self) -> int:
        """Inbound messages allowed in a rolling second."""
        override = self.config.inbound_messages_per_s
        return _MESSAGE_LIMITS[self.market] if override is None else override

    def ping_times_s(self) -> tuple[float, float]:
        """Return real seconds between pings, and from ping to the pong's deadline."""
        scale = self._scale()
        return (
            max(self.min_ping_interval_s, _PING_INTERVALS_S[self.market] * scale),
            max(4 * self.min_ping_interval_s, _PONG_TIMEOUTS_S[self.market] * scale),
        )

    @property
    def pings_are_hurried(self) -> bool:
        """Whether pings come faster than the exchange's because the clock does."""
        return self._scale() < 1

    def _scale(self) -> float:
        """Return real seconds per simulated second, at most 1."""
        return min(1.0, max(self.clock.real_seconds(SECOND_US), 1e-9))

    def connect_wait_s(self, address: str) -> float:
        """Count a connect and return 0, or real seconds until the address may connect again."""
        return self._connects.wait_s(address, time.monotonic())

    def cut(self) -> int:
        """Reset all connections (TCP) and return their number."""
        connections = list(self.connections)
        for connection in connections:
            connection.abort("cut")
        return len(connections)

    def stall(self, seconds: float | None) -> int:
        """Stall the current connections: nothing is sent or read, but TCP stays open.

        Frames that are due meanwhile are lost. Client messages wait and are read afterwards.

        Args:
            seconds: real time until the connections resume; None: for ever.
        """
        connections = list(self.connections)
        for connection in connections:
            connection.stall(seconds)
        return len(connections)

    def announce_shutdown(self, grace_s: float) -> int:
        """Send `serverShutdown` to all connections and close them `grace_s` later."""
        connections = list(self.connections)
        for connection in connections:
            connection.announce_shutdown(grace_s)
        return len(connections)


class ClientConnection(asyncio.Protocol):
    """One client."""

    target: StreamTarget
    session: StreamSession
    transport: asyncio.Transport

    def __init__(self, server: StreamServer) -> None:
        self._server = server
        self._protocol = ServerProtocol(max_size=1 << 20)
        self._queued: list[bytes] = []
        self._timers: list[asyncio.TimerHandle] = []
        self._messages = MessageRate(window_s=server.message_window_s)
        self._pings = OpenPings()
        self._fragments: list[bytes] = []
        self._stalled = False
        self._is_open = False
        self._drained = asyncio.Event()
        self._drained.set()
        self._peer = ""

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=1 << 20, low=1 << 18)
        self._peer = str(transport.get_extra_info("peername"))
        refusal = self._server.refusal
        if refusal is not None and refusal[1] is None:
            self._server.refused[refusal[0]] += 1
            self.abort("refused")
            return
        self._server.connections.add(self)

    def data_received(self, data: bytes) -> None:
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Request):
                self._handshake(event)
            elif isinstance(event, Frame):
                self._receive(event)
        self._send_protocol_data()

    def eof_received(self) -> bool:
        self._protocol.receive_eof()
        self._send_protocol_data()
        return False

    def pause_writing(self) -> None:
        self._drained.clear()

    def resume_writing(self) -> None:
        self._drained.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        self._drained.set()
        self._server.connections.discard(self)
        self._server.log.debug("connection_lost", peer=self._peer, reason=str(exc or "closed"))

    # --- hub.Listener

    def queue(self, frames: list[bytes]) -> None:
        self._queued.extend(frames)

    def flush(self) -> None:
        queued, self._queued = self._queued, []
        if not self._is_open or self._stalled or not queued:
            return
        self.transport.write(b"".join(queued))
        waiting = self.transport.get_write_buffer_size()
        if waiting > self._server.config.write_buffer_bytes:
            self._server.log.warning("slow_client_dropped", peer=self._peer, bytes=waiting)
            self.abort("slow")

    async def drained(self) -> None:
        """Wait until the client has read most of what was written."""
        await self._drained.wait()

    # --- operator's faults

    def abort(self, reason: str) -> None:
        """Reset the TCP connection without a closing handshake."""
        self._server.log.info("connection_aborted", peer=self._peer, reason=reason)
        self._forget()
        tcp = self.transport.get_extra_info("socket")
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.transport.abort()

    def stall(self, seconds: float | None) -> None:
        """Stop sending and reading, see `StreamServer.stall`."""
        if not self._stalled:
            self._stalled = True
            self.transport.pause_reading()
            self._later(_STALL_POLL_INTERVAL_S, self._drop_if_client_gone)
        if seconds is not None:
            self._later(seconds, self.resume)

    def resume(self) -> None:
        """End a stall. Frames due meanwhile are lost; waiting client messages are read now."""
        if self._stalled and not self.transport.is_closing():
            self._stalled = False
            self.transport.resume_reading()
            self._later(self._server.ping_times_s()[1], self._check_pongs)

    def _drop_if_client_gone(self) -> None:
        """Abort a stalled connection that the client has closed; its EOF is not read."""
        if not self._stalled or self.transport.is_closing():
            return
        looking = select.poll()
        looking.register(self.transport.get_extra_info("socket").fileno(), select.POLLRDHUP)
        if any(found & _GONE for _, found in looking.poll(0)):
            self.transport.abort()
        else:
            self._later(_STALL_POLL_INTERVAL_S, self._drop_if_client_gone)

    @property
    def streams(self) -> tuple[str, ...]:
        """Names of the subscribed streams."""
        return tuple(self.session.streams) if self._is_open else ()

    def announce_shutdown(self, grace_s: float) -> None:
        """Send the `serverShutdown` event, see `StreamServer.announce_shutdown`."""
        if not self._is_open or self._stalled:
            return
        event_us = self._server.clock.now_us() // self.target.unit_us
        text = f'{{"e":"serverShutdown","E":{event_us}}}'
        if self.session.combined:
            text = f'{{"stream":"!serverShutdown","data":{text}}}'
        self._write_text(text)
        self._later(grace_s, lambda: self.close(_GOING_AWAY, "server shutdown"))

    # --- the session

    def _handshake(self, request: Request) -> None:
        refusal = self._server.refusal
        if refusal is not None and refusal[1] is not None:
            self._server.refused[refusal[0]] += 1
            rejection = self._protocol.reject(refusal[1], "connection refused\n")
            self._protocol.send_response(rejection)
            return
        try:
            target = parse_target(self._server.market, request.path)
        except PathError as error:
            self._protocol.send_response(self._protocol.reject(error.status, f"{error}\n"))
            return
        wait_s = self._server.connect_wait_s(str(self.transport.get_extra_info("peername")[0]))
        if wait_s > 0:
            rejection = self._protocol.reject(429, "Too many connection attempts.\n")
            rejection.headers["Retry-After"] = str(math.ceil(wait_s))
            self._protocol.send_response(rejection)
            return
        response = self._protocol.accept(request)
        self._protocol.send_response(response)
        if self._protocol.state is not State.OPEN:
            return
        self._send_protocol_data()
        self.target = target
        self.session = StreamSession(target.combined, max_streams=self._server.config.max_streams)
        self._is_open = True
        self._server.log.debug("connection_opened", peer=self._peer, path=request.path)
        if len(target.streams) > self.session.max_streams:
            self.close(_POLICY_VIOLATION, "Invalid request")
            return
        self._server.hub.subscribe(self, self.session.add(target.streams))
        self._schedule_ping()
        life_s = self._server.clock.real_seconds(
            int(self._server.config.connection_life_s * SECOND_US)
        )
        if life_s < 10 * 86_400:
            self._later(life_s, lambda: self.close(_GOING_AWAY, "24 hours are over"))

    def _receive(self, frame: Frame) -> None:
        is_pong = frame.opcode is Opcode.PONG
        answers = is_pong and self._pings.answer(bytes(frame.data))
        if answers and self._server.pings_are_hurried:
            return  # a fast clock demands more pongs per second than the exchange would
        if is_pong or frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.PING):
            limit = self._server.message_limit
            if self._messages.exceeds(limit, time.monotonic()):
                self.close(_POLICY_VIOLATION, "Too many requests")
                return
        if frame.opcode in (Opcode.TEXT, Opcode.CONT) and self._is_open:
            self._fragments.append(bytes(frame.data))
            if frame.fin:
                message, self._fragments = b"".join(self._fragments), []
                self._handle_control(message)

    def _handle_control(self, message: bytes) -> None:
        reply = self.session.handle(message)
        self._write_text(reply.text)
        self._server.hub.unsubscribe(self, reply.removed)
        self._server.hub.subscribe(self, reply.added)
        if reply.close is not None:
            self.close(_POLICY_VIOLATION, reply.close)

    def close(self, code: int, reason: str) -> None:
        """Start the closing handshake; abort the TCP connection if it takes too long."""
        if not self._is_open:
            return
        self._server.log.info("connection_closed", peer=self._peer, code=code, reason=reason)
        self._forget()
        try:
            self._protocol.send_close(code, reason)
        except InvalidState:
            self.transport.abort()  # the client's close frame crossed ours
            return
        self._send_protocol_data()
        asyncio.get_running_loop().call_later(_CLOSE_TIMEOUT_S, self.transport.abort)

    def _forget(self) -> None:
        """Cancel subscriptions and timers; only the closing handshake remains."""
        if self._is_open:
            self._is_open = False
            self._server.hub.unsubscribe(self, tuple(self.session.streams))
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        if not self._is_open:
            return
        now = asyncio.get_running_loop().time()
        self._timers = [t for t in self._timers if not t.cancelled() and t.when() > now]
        self._timers.append(asyncio.get_running_loop().call_later(seconds, action))

    def _schedule_ping(self) -> None:
        self._later(self._server.ping_times_s()[0], self._ping)

    def _ping(self) -> None:
        if not self._is_open:  # the timer was due as the connection ended
            return
        if not self._stalled and self._protocol.state is State.OPEN:
            payload = str(self._server.clock.now_us() // 1_000).encode()
            timeout_s = self._server.ping_times_s()[1]
            self._protocol.send_ping(payload)
            self._send_protocol_data()
            self._pings.send(payload, time.monotonic() + timeout_s)
            self._later(timeout_s + 0.001, self._check_pongs)
        self._schedule_ping()

    def _check_pongs(self) -> None:
        # Pongs of a stalled client are not read, so they cannot be overdue.
        if not self._stalled and self._pings.are_overdue(time.monotonic()):
            self.abort("no pong")

    def _write_text(self, text: str) -> None:
        self.flush()  # earlier frames go first
        self.transport.write(encode_text_frame(text.encode()))

    def _send_protocol_data(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self.transport.write(data)
            elif self.transport.can_write_eof():
                self._forget()
                self.transport.write_eof()
        if self._protocol.close_expected() and not self.transport.is_closing():
            self._forget()
            asyncio.get_running_loop().call_later(_CLOSE_TIMEOUT_S, self.transport.close)
