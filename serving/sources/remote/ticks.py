"""Trades and book tickers of another process, while this one has readers of them.

There is one call for each, from the first reader to the last; symbols change within the call.
After a disconnect, ids reveal missing trades.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import grpc
import structlog

from include.backoff import Backoff, RetryLoop
from include.errors import TransientError
from serving.protobuf.generated.candelabra.v1 import market_data_pb2 as pb
from serving.sources.received_ticks import ReceivedTicks

log = structlog.get_logger(__name__)

BACKOFF = Backoff(first_s=0.25, max_s=15.0, min_s=0.05)
POLL_INTERVAL_S = 5.0
"""Wanted symbols are requested again this often: some may be streamed by now."""
CANCEL_TIMEOUT_S = 2.0


class RemoteTicks:
    """Hubs that are fed by ``StreamTrades`` and ``StreamBookTickers``.

    Args:
        stub: of the other process.
        metadata: sent with each call, such as a token.
    """

    def __init__(self, stub: Any, *, metadata: Sequence[tuple[str, str]] = ()) -> None:
        self.received = ReceivedTicks()
        self.hubs = self.received.hubs
        self.disconnects = 0
        self._stub = stub
        self._metadata = metadata
        self._trades_wanted, self._book_tickers_wanted = asyncio.Event(), asyncio.Event()
        self.hubs.trades.on_wanted = self._trades_wanted.set
        self.hubs.book_tickers.on_wanted = self._book_tickers_wanted.set

    async def run(self) -> None:
        """Receive ticks while there are readers; until cancelled."""
        trades, book_tickers = self.hubs.trades, self.hubs.book_tickers
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(
                self._run_calls(
                    self._trades_wanted,
                    lambda: trades.wanted,
                    partial(self._stub.StreamTrades, metadata=self._metadata),
                    pb.StreamTradesRequest,
                    self._on_trades,
                )
            )
            tasks.create_task(
                self._run_calls(
                    self._book_tickers_wanted,
                    lambda: book_tickers.wanted,
                    partial(self._stub.StreamBookTickers, metadata=self._metadata),
                    pb.StreamBookTickersRequest,
                    self._on_book_tickers,
                )
            )

    # --- what comes

    def _on_trades(self, message: pb.StreamTradesResponse) -> None:
        self.received.trades(message.trades, message.missed)

    def _on_book_tickers(self, message: pb.StreamBookTickersResponse) -> None:
        self.received.book_tickers(message)

    # --- calls

    async def _run_calls(
        self,
        changed: asyncio.Event,
        wanted: Callable[[], frozenset[str]],
        method: Callable[[], Any],
        request: Callable[..., Any],
        handle: Callable[[Any], None],
    ) -> None:
        """Make one call after another while symbols are wanted."""
        retries = RetryLoop(
            BACKOFF,
            on_retry=partial(
                log.warning, "ticks_interrupted", what=request.__name__.removesuffix("Request")
            ),
        )

        async def make_call() -> None:
            while not wanted():
                changed.clear()
                await changed.wait()
            call = method()
            sending = asyncio.create_task(
                self._send_requests(call, changed, wanted, request), name="ticks_asked"
            )
            receiving = asyncio.create_task(self._receive(call, handle), name="ticks_heard")
            began_s = asyncio.get_running_loop().time()
            error: BaseException | None = None
            try:
                done: set[asyncio.Task[None]] = set()
                while not done:
                    done, _ = await asyncio.wait(
                        [sending, receiving],
                        timeout=POLL_INTERVAL_S,
                        return_when=asyncio.FIRST_COMPLETED,
                    )
                error = next((found for one in done if (found := _error(one)) is not None), None)
            finally:
                call.cancel()
                for one in (sending, receiving):
                    one.cancel()
                await asyncio.wait([sending, receiving], timeout=CANCEL_TIMEOUT_S)
            if not wanted():
                return
            if error is not None and not isinstance(error, grpc.aio.AioRpcError):
                raise error
            if asyncio.get_running_loop().time() - began_s > BACKOFF.max_s:
                retries.succeeded()
            self.disconnects += 1
            raise TransientError(_reason(error)) from error

        await retries.run(make_call)

    async def _send_requests(
        self,
        call: Any,
        changed: asyncio.Event,
        wanted: Callable[[], frozenset[str]],
        request: Callable[..., Any],
    ) -> None:
        """Send the wanted symbols, as they change; ends when there are none."""
        while symbols := wanted():
            changed.clear()
            try:
                await call.write(request(symbols=sorted(symbols)))
            except asyncio.InvalidStateError:
                return  # the call has ended; its reader knows why
            try:
                async with asyncio.timeout(POLL_INTERVAL_S):
                    await changed.wait()
            except TimeoutError:
                continue

    async def _receive(self, call: Any, handle: Callable[[Any], None]) -> None:
        """Handle messages until the call ends."""
        while (message := await call.read()) is not grpc.aio.EOF:
            handle(message)
        await call.code()


def _error(task: asyncio.Task[None]) -> BaseException | None:
    return None if task.cancelled() else task.exception()


def _reason(error: BaseException | None) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    return "the other side ended the call"
