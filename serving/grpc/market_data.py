"""The gRPC service ``candelabra.v1.MarketData``."""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any, NoReturn

import grpc
import structlog

from include.domain.instruments import Market, unknown_symbol
from include.domain.timeframes import DAY_US, Timeframe, from_us_text, minute_of, timeframe
from include.errors import PermanentError, TransientError
from include.store.candles.bars import StoredBar, read_bars
from include.store.instruments import read_instruments, read_listings
from serving.bars.live_bars import LiveBars
from serving.bars.subscription import BarSubscription
from serving.grpc.tick_streams import TickStreams
from serving.protobuf.bars import (
    EARLIEST_US,
    LATEST_US,
    instrument_of,
    microseconds_of,
    missed_of,
    stored_of,
    streamed_of,
    update_of,
)
from serving.protobuf.generated.candelabra.v1 import market_data_pb2 as pb
from serving.read_pool import ReadPool
from streamer.hub.trade_hub import TickHubs

log = structlog.get_logger(__name__)

MAX_SYMBOLS = 5_000
"""Names in one request; a request without names means all symbols."""
DEFAULT_PAGE = 1_000
MAX_PAGE = 10_000
MAX_RESUMED_US = DAY_US
RESUMED_PAGE = 5_000

Context = Any
"""``grpc.aio.ServicerContext``, which has no types."""


class MarketData(TickStreams):
    """Serves live bars from memory and past bars from the tables.

    Args:
        now_us: returns the exchange's time.
        ticks: trades and book tickers; None if they are not served.
    """

    def __init__(
        self,
        live_bars: LiveBars,
        history: ReadPool,
        *,
        streamed: Callable[[], Iterable[str]],
        now_us: Callable[[], int],
        ticks: TickHubs | None = None,
    ) -> None:
        super().__init__(ticks, streamed=streamed)
        self._live_bars = live_bars
        self._history = history
        self._streamed = streamed
        self._now_us = now_us

    async def StreamCandles(
        self, request: pb.StreamCandlesRequest, context: Context
    ) -> AsyncIterator[pb.StreamCandlesResponse]:
        """See the .proto."""
        timeframes = await self._timeframes(request.timeframes, context)
        symbols = await self._symbols(request.symbols, context)
        resume_us = await self._resume_us(request, context)
        with self._live_bars.subscribe(
            symbols, timeframes, closed_only=request.closed_only, reports_streamed=True
        ) as subscription:
            if resume_us is not None:
                async for message in self._resumed(symbols, resume_us, context):
                    yield message
            async for message in self._updates(subscription):
                yield message

    async def ListCandles(
        self, request: pb.ListCandlesRequest, context: Context
    ) -> pb.ListCandlesResponse:
        """See the .proto."""
        frame = (await self._timeframes([request.timeframe or "1m"], context))[0]
        start_us, end_us = await self._range(request, context)
        size = request.page_size or DEFAULT_PAGE
        if not 0 < size <= MAX_PAGE:
            await _refuse(context, f"page_size is {size}; should be 1 to {MAX_PAGE:,}")
        if request.page_token:
            start_us = max(start_us, await _token_us(request.page_token, context))
        await self._known(request.symbol, context)
        bars = await self._read(context, request.symbol, frame, start_us, end_us, limit=size + 1)
        page, further = bars[:size], bars[size:]
        return pb.ListCandlesResponse(
            candles=[stored_of(bar, frame.name) for bar in page],
            next_page_token=_token(further[0].candle.open_time_us) if further else "",
        )

    async def ListInstruments(
        self, request: pb.ListInstrumentsRequest, context: Context
    ) -> pb.ListInstrumentsResponse:
        """See the .proto."""
        markets = [one.value for one in Market]
        if request.market and request.market not in markets:
            await _refuse(
                context, f"market is {request.market!r}; should be {' or '.join(markets)}, or empty"
            )
        market = Market(request.market) if request.market else None
        try:
            listings = await self._history.call(
                lambda connection: read_listings(connection, market=market)
            )
        except (TransientError, PermanentError, TimeoutError) as error:
            await _fail(context, error)
        return pb.ListInstrumentsResponse(
            instruments=[
                instrument_of(one)
                for one in listings
                if one.listed_to_us is None or request.include_delisted
            ]
        )

    # --- responses

    async def _updates(
        self, subscription: BarSubscription
    ) -> AsyncIterator[pb.StreamCandlesResponse]:
        is_snapshot = True
        while (bars := await subscription.receive()) is not None:
            ends = (
                is_snapshot
                and not subscription.waiting
                and self._live_bars.is_snapshot_complete(subscription)
            )
            if ends:
                is_snapshot = False
            if bars or ends:
                yield pb.StreamCandlesResponse(
                    updates=[update_of(one) for one in bars.updates],
                    missed=[missed_of(one) for one in bars.missed],
                    is_snapshot_end=ends,
                    streamed=streamed_of(bars.streamed),
                )

    async def _resumed(
        self, symbols: Sequence[str] | None, resume_us: int, context: Context
    ) -> AsyncIterator[pb.StreamCandlesResponse]:
        """Closed minutes from the table; the subscription is active already."""
        minute = timeframe("1m")
        for symbol in sorted(self._streamed() if symbols is None else symbols):
            start_us: int | None = resume_us
            while start_us is not None:
                bars = await self._read(context, symbol, minute, start_us, None, limit=RESUMED_PAGE)
                closed = [one for one in bars if one.is_closed]
                if closed:
                    yield pb.StreamCandlesResponse(
                        updates=[
                            pb.CandleUpdate(candle=stored_of(one, minute.name)) for one in closed
                        ]
                    )
                is_last = len(bars) < RESUMED_PAGE
                start_us = None if is_last else bars[-1].candle.open_time_us + 1

    async def _read(
        self,
        context: Context,
        symbol: str,
        frame: Timeframe,
        start_us: int,
        end_us: int | None,
        *,
        limit: int,
    ) -> list[StoredBar]:
        try:
            return await self._history.call(
                lambda connection: read_bars(
                    connection, symbol, frame, start_us, end_us, limit=limit
                )
            )
        except (TransientError, PermanentError, TimeoutError) as error:
            await _fail(context, error)

    # --- requests

    async def _timeframes(self, names: Iterable[str], context: Context) -> list[Timeframe]:
        wanted = list(dict.fromkeys(names)) or ["1m"]
        try:
            return [timeframe(name) for name in wanted]
        except ValueError as error:
            await _refuse(context, str(error))

    async def _symbols(self, names: Sequence[str], context: Context) -> list[str] | None:
        if not names:
            return None
        if len(names) > MAX_SYMBOLS:
            await _refuse(
                context,
                f"{len(names):,} symbols; should be {MAX_SYMBOLS:,} at most, or none for all",
            )
        streamed = await self._some_streamed(context)
        for name in names:
            if name not in streamed:
                await context.abort(
                    grpc.StatusCode.NOT_FOUND,
                    f"{name!r} is not streamed here; ListInstruments lists all symbols"
                    if len(name) <= MAX_NAME
                    else f"a symbol of {len(name)} characters is not streamed here",
                )
        return list(dict.fromkeys(names))

    async def _known(self, symbol: str, context: Context) -> None:
        """Abort unless the symbol exists, live or in the table."""
        if not symbol:
            await _refuse(context, "symbol is empty; should be one such as BTCUSDT or BTCUSDT.P")
        if symbol in frozenset(self._streamed()):
            return
        try:
            if await self._history.call(
                lambda connection: read_listings(connection, symbols=[symbol])
            ):
                return
            listed = await self._history.call(read_instruments)
        except (TransientError, PermanentError, TimeoutError) as error:
            await _fail(context, error)
        await context.abort(
            grpc.StatusCode.NOT_FOUND,
            unknown_symbol(symbol[:MAX_NAME], [one.symbol for one in listed]),
        )

    async def _resume_us(self, request: pb.StreamCandlesRequest, context: Context) -> int | None:
        if not request.HasField("resume_from"):
            return None
        if set(request.timeframes) - {"1m"}:
            await _refuse(context, "resume_from is for timeframe 1m only")
        resume_us = minute_of(microseconds_of(request.resume_from))
        if not EARLIEST_US <= resume_us < LATEST_US:  # it could not be printed
            await _refuse(context, "resume_from must lie within the years 1 to 9999")
        now_us = self._now_us()
        if not now_us - MAX_RESUMED_US <= resume_us <= now_us:
            await _refuse(
                context,
                f"resume_from is {from_us_text(resume_us)}; should lie within the day "
                f"before {from_us_text(now_us)}: ListCandles reads older ones",
            )
        return resume_us

    async def _range(
        self, request: pb.ListCandlesRequest, context: Context
    ) -> tuple[int, int | None]:
        bounds: list[int | None] = []
        for name in ("from_time", "to_time"):
            if not request.HasField(name):
                bounds.append(None)
                continue
            moment_us = microseconds_of(getattr(request, name))
            if not EARLIEST_US <= moment_us < LATEST_US:
                await _refuse(context, f"{name} must lie within the years 1 to 9999")
            bounds.append(moment_us)
        start_us, end_us = 0 if bounds[0] is None else bounds[0], bounds[1]
        if end_us is not None and end_us < start_us:
            await _refuse(
                context,
                f"to_time {from_us_text(end_us)} lies before from_time {from_us_text(start_us)}",
            )
        return start_us, end_us


MAX_NAME = 64
"""Characters of a name that an error repeats."""


async def _refuse(context: Context, why: str) -> NoReturn:
    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, why)
    raise AssertionError("abort raises")


async def _fail(context: Context, error: Exception) -> NoReturn:
    """Abort because PostgreSQL cannot be read."""
    is_passing = isinstance(error, (TransientError, TimeoutError))
    log.warning("history_not_read", error=str(error) or "timeout", is_passing=is_passing)
    await context.abort(
        grpc.StatusCode.UNAVAILABLE if is_passing else grpc.StatusCode.FAILED_PRECONDITION,
        "the tables cannot be read at present; try again"
        if is_passing
        else "the tables are missing or wrong: see the server's log",
    )
    raise AssertionError("abort raises")


def _token(open_time_us: int) -> str:
    return base64.urlsafe_b64encode(str(open_time_us).encode()).decode()


async def _token_us(token: str, context: Context) -> int:
    try:
        found = int(base64.urlsafe_b64decode(token.encode()))
    except (ValueError, binascii.Error, UnicodeError):
        found = None
    if found is None or not EARLIEST_US <= found < LATEST_US:
        await _refuse(context, "page_token is not from a previous response")
    return found
