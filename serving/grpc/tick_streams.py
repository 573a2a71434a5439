"""The calls of ``candelabra.v1.MarketData`` that stream trades and book tickers.

A caller changes its symbols within the call, so that no tick is lost at a change.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import grpc
from google.protobuf.message import DecodeError

from serving.protobuf.generated.candelabra.v1 import market_data_pb2 as pb
from serving.protobuf.generated.candelabra.v1 import market_data_pb2_grpc as services
from serving.protobuf.ticks import book_ticker_of, missed_trades_of, trade_of
from streamer.hub.ticks import BookTickerSubscription, Ticks, TradeSubscription
from streamer.hub.trade_hub import FullError, TickHubs

MAX_SYMBOLS = 5_000
FIRST_TIMEOUT_S = 30.0
"""Timeout for a caller's first request."""
CANCEL_TIMEOUT_S = 1.0
NOTHING_YET = "no symbol is streamed here yet; try again in a moment"
NO_MESSAGE = "the bytes are not a message of this call"

Context = Any
"""``grpc.aio.ServicerContext``, which has no types."""
Request = pb.StreamTradesRequest | pb.StreamBookTickersRequest
SubscriptionT = TypeVar("SubscriptionT", TradeSubscription, BookTickerSubscription)


@dataclass(slots=True)
class _CallState(Generic[SubscriptionT]):
    """A caller's subscription, and how its requests ended."""

    subscription: SubscriptionT
    not_streamed: list[str] | None = None
    """Symbols of the last request that are not streamed; None once the list was sent."""
    refusal: str = ""


class TickStreams(services.MarketDataServicer):
    """Streams ticks from the hubs of this process.

    Args:
        ticks: None if ticks are not served.
    """

    def __init__(self, ticks: TickHubs | None, *, streamed: Callable[[], Iterable[str]]) -> None:
        self._ticks = ticks
        self._streamed_now = streamed

    async def StreamTrades(
        self, requests: AsyncIterator[pb.StreamTradesRequest], context: Context
    ) -> AsyncIterator[pb.StreamTradesResponse]:
        """See the .proto."""
        hub = (await self._hubs(context)).trades
        async for found, not_streamed in self._ticks_of_call(hub, requests, context):
            yield pb.StreamTradesResponse(
                trades=[trade_of(one) for one in found.ticks],
                missed=[missed_trades_of(one) for one in found.missed],
                not_streamed=not_streamed,
            )

    async def StreamBookTickers(
        self, requests: AsyncIterator[pb.StreamBookTickersRequest], context: Context
    ) -> AsyncIterator[pb.StreamBookTickersResponse]:
        """See the .proto."""
        hub = (await self._hubs(context)).book_tickers
        async for found, not_streamed in self._ticks_of_call(hub, requests, context):
            yield pb.StreamBookTickersResponse(
                book_tickers=[book_ticker_of(one) for one in found.ticks], not_streamed=not_streamed
            )

    async def _some_streamed(self, context: Context) -> frozenset[str]:
        """The streamed symbols; aborts while there are none, since no name is wrong then."""
        streamed = frozenset(self._streamed_now())
        if not streamed:
            await context.abort(grpc.StatusCode.UNAVAILABLE, NOTHING_YET)
        return streamed

    async def _hubs(self, context: Context) -> TickHubs:
        if self._ticks is None:
            await context.abort(
                grpc.StatusCode.UNIMPLEMENTED,
                "trades and book tickers are not served here; ask a streamer, or a server that is "
                "attached to one by gRPC",
            )
            raise AssertionError("abort raises")
        return self._ticks

    async def _ticks_of_call(
        self, hub: Any, requests: AsyncIterator[Request], context: Context
    ) -> AsyncIterator[tuple[Ticks[Any, Any], list[str]]]:
        with hub.subscribe() as subscription:
            state = _CallState(subscription)
            await self._handle_first(hub, state, await self._first(requests, context), context)
            following = asyncio.create_task(
                self._handle_further(hub, state, requests), name="wishes"
            )
            try:
                while True:
                    not_streamed, state.not_streamed = state.not_streamed, None
                    found = subscription.drain()
                    if found or not_streamed:
                        yield found, not_streamed or []
                    elif state.refusal:
                        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, state.refusal)
                    else:
                        await subscription.changed()
            finally:
                following.cancel()
                await asyncio.wait([following], timeout=CANCEL_TIMEOUT_S)

    async def _first(self, requests: AsyncIterator[Request], context: Context) -> Request:
        why = f"the call sent no request; should name symbols within {FIRST_TIMEOUT_S:g} s"
        try:
            async with asyncio.timeout(FIRST_TIMEOUT_S):
                async for request in requests:
                    return request
        except TimeoutError:
            pass
        except DecodeError:
            why = NO_MESSAGE
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, why)
        raise AssertionError("abort raises")

    async def _handle_first(
        self, hub: Any, state: _CallState[Any], request: Request, context: Context
    ) -> None:
        """Handle the first request; it is refused as a whole if it is invalid."""
        if refusal := _refusal(request):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, refusal)
        streamed = await self._some_streamed(context)
        if not streamed & frozenset(request.symbols):
            await context.abort(
                grpc.StatusCode.NOT_FOUND,
                "none of the symbols is streamed here; ListInstruments lists all symbols",
            )
        try:
            hub.add_symbols(state.subscription, streamed & frozenset(request.symbols))
        except FullError as error:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        state.not_streamed = [one for one in request.symbols if one not in streamed] or None

    async def _handle_further(
        self, hub: Any, state: _CallState[Any], requests: AsyncIterator[Request]
    ) -> None:
        """Handle further requests."""
        try:
            async for request in requests:
                if refusal := _refusal(request):
                    state.refusal = refusal
                    return
                wanted = frozenset(request.symbols)
                hub.remove_symbols(state.subscription, state.subscription.symbols - wanted)
                streamed = frozenset(self._streamed_now())
                left = [one for one in request.symbols if one not in streamed]
                try:
                    hub.add_symbols(state.subscription, wanted & streamed)
                except FullError:
                    left = [one for one in request.symbols if one not in state.subscription.symbols]
                state.not_streamed = left or None
                state.subscription.wake()
        except DecodeError:
            state.refusal = NO_MESSAGE
        finally:
            state.subscription.wake()


def _refusal(request: Request) -> str:
    """Why a request is invalid; empty if it is valid."""
    if not 0 < len(request.symbols) <= MAX_SYMBOLS:
        return f"{len(request.symbols):,} symbols; should be 1 to {MAX_SYMBOLS:,}"
    return ""
