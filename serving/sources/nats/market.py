"""Minutes from all streamers that publish over NATS.

A server that starts later requests the streamers' states. After a disconnect, or when message
numbers are missing, it requests them again and reads missed minutes from the table.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from include.config import Settings
from include.counts import counted
from include.domain.timeframes import MINUTE_US
from include.store.candles.resumed_minutes import MinutesRequest, StoredMinute, read_minutes_since
from include.store.postgres.pools import connect
from serving.protobuf.bars import microseconds_of
from serving.protobuf.generated.candelabra.v1 import bus_pb2 as bus
from serving.sources.candle_mailbox import CandleMailbox
from serving.sources.nats.connection import NatsConnection, first_ended, flushed
from serving.sources.nats.minute_states import MinuteStates
from serving.sources.nats.publisher_state import SILENT_S, PublisherState
from serving.sources.nats.resumption import CandleResumption, Read
from serving.sources.nats.streamed_symbols import StreamedByStreamer
from serving.sources.nats.wire import (
    ALL_HEARTBEATS,
    ALL_MINUTES,
    ALL_STATES,
    REQUEST_ALL_STATES,
    UNREADABLE,
    UnreadableMessages,
    check_symbol,
    check_time,
    minute_of,
    states_request_subject,
)
from streamer.hub.subscription import CandleUpdate

log = structlog.get_logger(__name__)

LOOK_S = 0.5
MAX_PENDING = 65_536
"""Messages, and their bytes, that may wait in the client; message numbers reveal what is lost."""
MAX_PENDING_BYTES = 64 << 20

MAX_SILENT = 1_000
"""Silent streamers whose symbols are remembered; the oldest are forgotten first."""

Beside = Callable[[Client], Coroutine[Any, Any, None]]


class NatsMarket:
    """The symbols and minutes of all streamers that publish.

    Args:
        read: reads minutes from the table; blocking.
        beside: further work for each connection.
        clock: monotonic, in seconds.
        wall_us: wall clock in µs; the table is read for rows written since.
    """

    def __init__(
        self,
        nats: NatsConnection,
        read: Read,
        *,
        beside: Beside | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_us: Callable[[], int] = lambda: time.time_ns() // 1_000,
    ) -> None:
        self.nats = nats
        self.losses = 0
        """Times that messages of a streamer were lost."""
        self._beside = beside
        self._unreadable = UnreadableMessages()
        self._clock = clock
        self._states = MinuteStates()
        self._publishers: dict[str, PublisherState] = {}
        self._streamed = StreamedByStreamer()
        self._listed: frozenset[str] = frozenset()
        """Streamed symbols, as last reported to readers."""
        self._silent: dict[str, set[str]] = {}
        """Symbols of silent streamers: they may have dropped some when they return."""
        self._mailbox = CandleMailbox()
        self._resumption = CandleResumption(
            self._states, self._mailbox, read, self._publish, wall_us=wall_us
        )
        self._on_closed: Callable[[CandleUpdate], None] | None = None

    # --- for what is served

    @property
    def is_connected(self) -> bool:
        """Whether a streamer is publishing."""
        return self.nats.is_connected and bool(self._publishers)

    @property
    def disconnects(self) -> int:
        """Connections to NATS that ended."""
        return self.nats.disconnects

    def streamed(self) -> list[str]:
        """Symbols that the streamers report as streamed."""
        return sorted(self._listed)

    def now_us(self) -> int:
        """The exchange's time, to the end of the minute."""
        return self._states.newest_us + MINUTE_US

    def newest(self, symbol: str) -> CandleUpdate | None:
        """The newest minute of a symbol; None if none was received."""
        return self._states.newest(symbol)

    def listen_closed(self, call: Callable[[CandleUpdate], None]) -> None:
        """Set the function that is called with each closed minute."""
        self._on_closed = call

    def changes(self) -> CandleMailbox:
        """Changes of all symbols; for one reader."""
        return self._mailbox

    def condition(self) -> dict[str, Any]:
        """Health of the connection."""
        reasons = []
        if not self.nats.is_connected:
            reasons.append(f"NATS is unreachable: {self.nats.reason}")
        elif not self._publishers:
            reasons.append("no streamer publishes on this NATS")
        if self._resumption.waiting:
            reasons.append(
                f"minutes of {counted(self._resumption.waiting, 'symbol')} are still to be "
                "read from the table"
            )
        return {
            "status": "ailing" if reasons else "well",
            "reasons": reasons,
            **self.statistics(),
        }

    def statistics(self) -> dict[str, Any]:
        """Figures since the start."""
        return {
            "nats": self.nats.hosts,
            "is_connected": self.is_connected,
            "streamers": len(self._publishers),
            "symbols": len(self._listed),
            "disconnects": self.nats.disconnects,
            "losses": self.losses,
            "dropped": self.nats.dropped,
            "unreadable": self._unreadable.count,
            "conflated": self._mailbox.conflated,
            "resumed": self._resumption.resumed,
            "waiting": self._resumption.waiting,
        }

    async def run(self) -> None:
        """Receive over one connection after another, until cancelled."""
        await first_ended(self.nats.run(self._session), self._resumption.run())

    # --- a connection

    async def _session(self, client: Client) -> None:
        for publisher in self._publishers.values():  # messages between two connections are lost
            publisher.received_s = self._clock()
            publisher.lose(publisher.total + 1)
            self._request(publisher.symbols)
        for subject, decode in (
            (ALL_MINUTES, self._on_candles),
            (ALL_STATES, self._on_states),
            (ALL_HEARTBEATS, self._on_heartbeat),
        ):
            await client.subscribe(
                subject,
                cb=self._handler(decode),
                pending_msgs_limit=MAX_PENDING,
                pending_bytes_limit=MAX_PENDING_BYTES,
            )
        await flushed(client)
        await client.publish(REQUEST_ALL_STATES, b"")
        works = [self._watch_for_losses(client)]
        if self._beside is not None:
            works.append(self._beside(client))
        await first_ended(*works)

    async def _watch_for_losses(self, client: Client) -> None:
        """Detect silent streamers and lost messages."""
        while True:
            await asyncio.sleep(LOOK_S)
            now_s = self._clock()
            for publisher in list(self._publishers.values()):
                if now_s - publisher.received_s > SILENT_S:
                    self._fall_silent(publisher)
                elif publisher.is_behind(now_s):
                    self._note_loss(publisher)
                if publisher.needs_states(now_s):
                    publisher.requested_s = now_s
                    await client.publish(states_request_subject(publisher.streamer), b"")
            self._streamed.expire(now_s)
            self._report_streamed()

    # --- what comes

    def _handler(self, decode: Callable[[bytes], None]) -> Callable[[Msg], Any]:
        async def handle(message: Msg) -> None:
            try:
                decode(message.data)
            except UNREADABLE as error:
                self._unreadable.note(message.subject, error)

        return handle

    def _on_candles(self, payload: bytes) -> None:
        message = bus.PublishedCandles.FromString(payload)
        updates = [minute_of(one) for one in message.updates]
        for missed in message.missed:
            check_symbol(missed.symbol)
            check_time(missed.from_time, missed.to_time)
        publisher = self._publisher_of(message.streamer, message.connection)
        if publisher is None:
            return
        is_new = publisher.total == 0
        if not publisher.on_message(message.total, self._clock()):
            self._note_loss(publisher, is_expected=is_new)
        for update in updates:
            symbol = update.candle.symbol
            self._add_symbol(publisher, symbol)
            if publisher.lost_at is not None:
                publisher.since[symbol, update.candle.open_time_us] = message.total
            self._publish(update)
        for missed in message.missed:
            self._mailbox.report_missed_minutes(
                missed.symbol, microseconds_of(missed.from_time), microseconds_of(missed.to_time)
            )

    def _on_states(self, payload: bytes) -> None:
        message = bus.States.FromString(payload)
        updates = [minute_of(one) for one in message.updates]
        publisher = self._publisher_of(message.streamer, message.connection)
        if publisher is None:
            return
        publisher.received_s = self._clock()
        if publisher.total == 0:
            publisher.lose(
                message.total + 1
            )  # discovered by states that another server or we requested
            publisher.total = message.total
        if publisher.lost_at is None:
            return  # another server requested these
        for update in updates:
            candle = update.candle
            self._add_symbol(publisher, candle.symbol)
            if publisher.is_wanted(candle.symbol, candle.open_time_us, message.total):
                self._publish(update)
        if publisher.on_states(message.total, message.part, is_last=message.is_last):
            log.info("states_received", streamer=publisher.streamer, symbols=len(publisher.symbols))

    def _on_heartbeat(self, payload: bytes) -> None:
        message = bus.Heartbeat.FromString(payload)
        for symbol in message.streamed.symbols:
            check_symbol(symbol)
        publisher = self._publisher_of(message.streamer, message.connection)
        if publisher is not None:
            publisher.on_heartbeat(message.totals["1m"], self._clock())
            if message.HasField("streamed"):
                self._streamed.on_heartbeat(publisher.streamer, message.streamed.symbols)
                self._report_streamed()

    def _publisher_of(self, streamer: str, connection: int) -> PublisherState | None:
        """The state of a publisher; None for messages of a connection that has been replaced."""
        known = self._publishers.get(streamer)
        if known is not None and known.connection >= connection:
            return known if known.connection == connection else None
        # It does not report what it dropped in the meantime.
        self._request(known.symbols if known is not None else self._silent.pop(streamer, ()))
        made = self._publishers[streamer] = PublisherState(streamer, connection, self._clock())
        self._streamed.on_return(streamer)
        log.info("streamer_found", streamer=streamer, connection=connection)
        return made

    def _add_symbol(self, publisher: PublisherState, symbol: str) -> None:
        """Add a symbol that a streamer publishes."""
        if self._streamed.on_symbol(publisher.streamer, symbol):
            self._report_streamed()
        if symbol not in publisher.symbols:
            publisher.symbols.add(symbol)
            # Another streamer, or another connection, may have published it before.
            self._resumption.request(symbol)

    def _report_streamed(self) -> None:
        """Report changes of the streamed symbols, and forget dropped ones.

        A symbol stays until its missed minutes are delivered. A state that comes after it was
        dropped
        brings it back until the next heartbeat.
        """
        streamed = self._streamed.symbols
        gone = self._listed - streamed
        streamed |= {
            one for one in gone if self._resumption.is_waiting_for(one)
        }  # checked again soon
        if streamed == self._listed:
            return
        dropped = self._listed - streamed
        self._listed = streamed
        for symbol in dropped:
            self._states.drop(symbol)
            self._resumption.drop(symbol)
        for publisher in self._publishers.values():
            publisher.symbols -= dropped
        self._mailbox.report_streamed(streamed)

    def _note_loss(self, publisher: PublisherState, *, is_expected: bool = False) -> None:
        """Count lost messages; expected are those from before we subscribed."""
        if not is_expected:
            self.losses += 1
            log.warning("nats_messages_lost", streamer=publisher.streamer, before=publisher.lost_at)
        self._request(publisher.symbols)

    def _fall_silent(self, publisher: PublisherState) -> None:
        log.warning("streamer_silent", streamer=publisher.streamer)
        del self._publishers[publisher.streamer]
        self._streamed.on_silence(publisher.streamer, self._clock())
        self._silent[publisher.streamer] = publisher.symbols
        if len(self._silent) > MAX_SILENT:
            del self._silent[next(iter(self._silent))]
        self._request(publisher.symbols)

    def _request(self, symbols: Iterable[str]) -> None:
        for symbol in symbols:
            self._resumption.request(symbol)

    def _publish(self, update: CandleUpdate) -> None:
        if update.candle.symbol not in self._listed:
            return  # dropped while the table was read
        candle = update.candle
        newest_us = self._states.newest_us_of(candle.symbol)
        if newest_us is not None and candle.open_time_us > newest_us + MINUTE_US:
            self._resumption.request(candle.symbol)  # nothing was published of the minutes between
        changed = self._states.add(update)
        if changed is None:
            return
        self._resumption.note_received(changed.candle.symbol)
        self._mailbox.publish(changed)
        if changed.is_closed and self._on_closed is not None:
            self._on_closed(changed)


def nats_market(settings: Settings, *, beside: Beside | None = None) -> NatsMarket:
    """Build the market of all publishing streamers from the settings.

    Raises:
        PermanentError: no database is configured, or the CA file holds no certificate.
    """
    url = settings.url_for("serving")

    def read(requests: Mapping[str, MinutesRequest], first_us: int) -> list[StoredMinute]:
        with connect(url, application_name="candelabra-resumption") as connection:
            return read_minutes_since(connection, requests, first_us=first_us)

    nats = NatsConnection(
        settings.nats_url,
        name=f"candelabra-server-{secrets.token_hex(8)}",
        certificate=settings.nats_trusted_file,
    )
    return NatsMarket(nats, read, beside=beside)
