"""Minutes from another process, by its ``StreamCandles``.

After a disconnect the call is made again, with some overlap: the states in the other process's
memory come first, and minutes that closed in the meantime come from the table.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import structlog

from include.backoff import Backoff
from include.domain.timeframes import MINUTE_US, SECOND_US, minute_of
from include.errors import PermanentError, TransientError
from serving.protobuf.bars import bar_update_of, microseconds_of, streamed_in, time_of
from serving.protobuf.generated.candelabra.v1 import market_data_pb2 as pb
from serving.protobuf.generated.candelabra.v1 import market_data_pb2_grpc as services
from serving.sources.candle_mailbox import CandleMailbox
from streamer.hub.subscription import Batch, CandleUpdate

log = structlog.get_logger(__name__)

BACKOFF = Backoff(first_s=0.25, max_s=15.0, min_s=0.05)
OVERLAP_US = 10 * MINUTE_US
"""Minutes before the newest that are requested again: they may not have been closed."""
MAX_RESUMED_S = 23 * 3_600.0
"""After a longer disconnect nothing is resumed: the other side resumes a day at most, and readers
read the past from the table.
"""
MAX_WAITING = 5_000
"""Minutes that may wait; beyond this the stream is not read, and the other side conflates."""
SILENT_S = 120.0
"""A market without any change for this long counts as disconnected."""
_PASSING = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
    }
)


class RemoteMarket:
    """The symbols and minutes of a streamer that serves gRPC.

    Args:
        address: host and port.
        certificate: PEM file of the trusted CA, for TLS; None connects without TLS.
        token: API token, if the other side requires one.
    """

    def __init__(self, address: str, *, certificate: Path | None = None, token: str = "") -> None:
        self.address = address
        self.metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._channel = _channel(address, certificate)
        self.stub = services.MarketDataStub(self._channel)  # type: ignore[no-untyped-call]
        self._newest: dict[str, pb.CandleUpdate] = {}
        self._newest_us = 0
        self._streamed: frozenset[str] | None = None
        """Streamed symbols; None if the streamer does not report them."""
        self._on_closed: Callable[[CandleUpdate], None] | None = None
        self.is_connected = False
        self.disconnects = 0

    def streamed(self) -> list[str]:
        """Symbols that the other side reports as streamed."""
        return sorted(self._newest if self._streamed is None else self._streamed)

    def now_us(self) -> int:
        """The exchange's time, to the end of the minute."""
        return self._newest_us + MINUTE_US

    def newest(self, symbol: str) -> CandleUpdate | None:
        """The newest minute of a symbol; None if none was received."""
        known = self._newest.get(symbol)
        return None if known is None else _update_of(known)

    def listen_closed(self, call: Callable[[CandleUpdate], None]) -> None:
        """Set the function that is called with each closed minute."""
        self._on_closed = call

    def condition(self) -> dict[str, Any]:
        """Health of the connection."""
        return {
            "status": "well" if self.is_connected else "ailing",
            "reasons": [] if self.is_connected else ["the streamer is unreachable"],
            "streamer": self.address,
            "symbols": len(self.streamed()),
            "disconnects": self.disconnects,
        }

    def changes(self) -> RemoteChanges:
        """Subscribe to all symbols."""
        return RemoteChanges(self._messages)

    async def close(self) -> None:
        """End all calls."""
        await self._channel.close(1.0)

    async def _messages(self) -> AsyncIterator[pb.StreamCandlesResponse]:
        """Yield the messages of one call after another, without end."""
        loop = asyncio.get_running_loop()
        failures, received_s = 0, loop.time()
        while True:
            request = pb.StreamCandlesRequest()
            has_list = False
            if self._newest_us and loop.time() - received_s < MAX_RESUMED_S:
                request.resume_from.CopyFrom(time_of(self.now_us() - MINUTE_US - OVERLAP_US))
            try:
                call = self.stub.StreamCandles(request, metadata=self.metadata)
                while True:
                    async with asyncio.timeout(SILENT_S):
                        message = await call.read()
                    if message is grpc.aio.EOF:
                        raise TransientError("the other side ended the call")  # noqa: TRY301
                    silent_s = loop.time() - received_s
                    failures, received_s, self.is_connected = 0, loop.time(), True
                    if not has_list and message.HasField("streamed"):
                        has_list = True
                        self._note_dropped(message, silent_s)
                    self._note(message)
                    yield message
            except (grpc.aio.AioRpcError, TransientError, TimeoutError) as error:
                if isinstance(error, grpc.aio.AioRpcError) and error.code() not in _PASSING:
                    hint = ""
                    if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                        hint = "; STREAMER_TOKEN should be a token from `candelabra user token add`"
                    raise PermanentError(
                        f"the streamer at {self.address} refuses: {error.details()}{hint}"
                    ) from error
                failures += 1
                self.disconnects += self.is_connected
                self.is_connected = False
                wait_s = BACKOFF.wait_s(failures)
                log.warning(
                    "streamer_unreachable",
                    address=self.address,
                    error=_reason(error),
                    retry_in_s=round(wait_s, 2),
                )
                await asyncio.sleep(wait_s)

    def _note_dropped(self, message: pb.StreamCandlesResponse, silent_s: float) -> None:
        """Add the missed minutes of symbols that were dropped since the last call to its first
        list.

        The other side resumes only the symbols that it still streams.
        """
        newest_us = max([self._newest_us, *(_open_us(one) for one in message.updates)])
        end_us = minute_of(newest_us + round(silent_s * SECOND_US)) + 2 * MINUTE_US
        for symbol in sorted(self._newest.keys() - set(message.streamed.symbols)):
            message.missed.add(
                symbol=symbol,
                timeframe="1m",
                from_time=time_of(_open_us(self._newest[symbol]) - OVERLAP_US),
                to_time=time_of(end_us),
            )

    def _note(self, message: pb.StreamCandlesResponse) -> None:
        streamed = streamed_in(message)
        if streamed is not None:
            self._streamed = streamed
            for symbol in self._newest.keys() - streamed:
                del self._newest[symbol]
        for update in message.updates:
            symbol, open_us = update.candle.symbol, _open_us(update)
            self._newest_us = max(self._newest_us, open_us)
            known = self._newest.get(symbol)
            is_streamed = self._streamed is None or symbol in self._streamed
            if is_streamed and (known is None or open_us >= _open_us(known)):
                self._newest[symbol] = update
            if self._on_closed is not None and update.candle.is_closed:
                self._on_closed(_update_of(update))


class RemoteChanges(CandleMailbox):
    """Minutes from a stream of messages, which a separate task reads."""

    def __init__(self, messages: Callable[[], AsyncIterator[pb.StreamCandlesResponse]]) -> None:
        super().__init__(has_snapshot=False)
        self._messages = messages
        self._task = asyncio.create_task(self._read(), name="remote")

    async def receive(self) -> Batch | None:
        """Wait until something changed.

        Raises:
            PermanentError: the other side refuses.
        """
        batch = await super().receive()
        if batch is None and self._task.done() and not self._task.cancelled():
            self._task.result()
        return batch

    def unsubscribe(self) -> None:
        """Unsubscribe."""
        self._task.cancel()
        super().unsubscribe()

    async def _read(self) -> None:
        try:
            async for message in self._messages():
                streamed = streamed_in(message)
                # A list applies to the updates after it, so it waits for those before it.
                await self.room(MAX_WAITING if streamed is None else 1)
                if streamed is not None:
                    self.report_streamed(streamed)
                for missed in message.missed:
                    self.report_missed_minutes(
                        missed.symbol,
                        microseconds_of(missed.from_time),
                        microseconds_of(missed.to_time),
                    )
                for update in message.updates:
                    self.publish(_update_of(update))
                if message.is_snapshot_end:
                    self.end_snapshot()
        finally:
            self.close()


def _open_us(update: pb.CandleUpdate) -> int:
    return microseconds_of(update.candle.open_time)


def _update_of(message: pb.CandleUpdate) -> CandleUpdate:
    bar = bar_update_of(message)
    return CandleUpdate(
        bar.candle,
        is_closed=bar.is_closed,
        status=bar.status,
        source=bar.source,
        is_revision=bar.is_revision,
        has_quotes=bar.has_quotes,
    )


def _channel(address: str, certificate: Path | None) -> grpc.aio.Channel:
    options = [
        ("grpc.max_receive_message_length", 16 << 20),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.ping_timeout_ms", 10_000),  # as in the server
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 5_000),
    ]
    if certificate is None:
        return grpc.aio.insecure_channel(address, options=options)
    try:
        trusted = certificate.read_bytes()
    except OSError as error:
        raise PermanentError(
            f"{certificate}: {error.strerror}; should be the PEM file of the trusted CA"
        ) from error
    return grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(trusted), options=options)


def _reason(error: BaseException) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    return str(error) or f"nothing came for {SILENT_S:g} s"
