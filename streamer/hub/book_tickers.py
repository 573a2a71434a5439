"""Best prices that readers listen to, streamed while they do: one connection a market.

Raw capture has connections of its own: what is written does not depend on who listens.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

import structlog

from include.binance.streams.book_tickers import BookTicker, decode_captured
from include.binance.streams.messages import ControlAnswer, ServerShutdown, microseconds
from include.config import Settings
from include.domain.instruments import Market, exchange_symbol_of, market_of, symbol_of
from include.domain.timeframes import SECOND_US
from include.errors import PermanentError
from include.jobs.exchange import endpoints_of
from streamer.exchange.connection import StreamConnection
from streamer.exchange.connection_ends import end_connections
from streamer.hub.ticks import BookTickerUpdate
from streamer.hub.trade_hub import BookTickerHub

log = structlog.get_logger(__name__)

CARRIED = "best prices"
POLL_INTERVAL_S = 10.0
"""A change of what is wanted is heard at once; so often it is looked for all the same."""
LOGGED_BAD_FRAMES = 10
QUIET_S = 60.0
"""Best prices of a symbol that have not changed for so long are asked for again: the subscription
may be dead on a connection that lives. Each time in vain doubles it."""
MAX_QUIET_S = 960.0

MakeConnection = Callable[["BookTickerConnection"], StreamConnection]


class BookTickerConnection:
    """The messages of one market's connection.

    Args:
        make: makes the connection, which is given this line's functions.
        now_us: wall clock.
        clock_s: a monotonic clock.
    """

    def __init__(
        self,
        market: Market,
        fan: BookTickerHub,
        make: MakeConnection,
        *,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.market = market
        self.frames = 0
        self.bad_frames = 0
        self.names: frozenset[str] = frozenset()
        """The exchange's, of symbols that are streamed."""
        self._fan = fan
        self._now_us = now_us
        self._clock_s = clock_s
        self._quiet: dict[str, tuple[float, float]] = {}
        """When something came of a name, or it was asked for again; how long it may be quiet."""
        self.connection = make(self)

    def want(self, names: frozenset[str]) -> None:
        """Stream these, and no others."""
        self.connection.subscribe(_streams(names - self.names))
        self.connection.unsubscribe(_streams(self.names - names))
        self.names = names
        known, now_s = self._quiet, self._clock_s()
        self._quiet = {one: known.get(one, (now_s, QUIET_S)) for one in names}

    def look(self) -> None:
        """Ask again for what has been quiet for long."""
        now_s = self._clock_s()
        if not self.connection.is_open:  # all is asked for when it is open again
            self._quiet = dict.fromkeys(self.names, (now_s, QUIET_S))
            return
        quiet = [one for one, (since_s, for_s) in self._quiet.items() if now_s - since_s >= for_s]
        for one in quiet:
            self._quiet[one] = now_s, min(2 * self._quiet[one][1], MAX_QUIET_S)
        if quiet:
            log.info("quotes_asked_again", connection=self.connection.name, symbols=len(quiet))
            self.connection.session.resubscribe(_streams(frozenset(quiet)))

    def on_texts(self, messages: Sequence[bytes]) -> None:
        """Handle messages, in order; what cannot be used is counted and logged, never raised."""
        received_us = self._now_us()
        for data in messages:
            self._on_text(data, received_us)

    def on_held(self, messages: Sequence[bytes], ages_s: Sequence[float]) -> None:
        """Handle what a successor received beside its predecessor: mostly repeats."""
        now_us = self._now_us()
        for data, age_s in zip(messages, ages_s, strict=True):
            self._on_text(data, now_us - round(age_s * SECOND_US), is_held=True)

    def _on_text(self, data: bytes, received_us: int, *, is_held: bool = False) -> None:
        self.frames += 1
        try:
            frame = decode_captured(data)
        except PermanentError as error:
            self.bad_frames += 1
            if self.bad_frames <= LOGGED_BAD_FRAMES:
                log.warning("bad_frame", connection=self.connection.name, error=str(error))
            return
        if type(frame) is BookTicker:
            if frame.symbol in self.names:
                self._on_quote(frame, received_us, is_held=is_held)
        elif isinstance(frame, ControlAnswer):
            refused = self.connection.session.on_answer(frame)
            if refused is not None:
                log.error("subscription_refused", connection=self.connection.name, what=refused)
                self.connection.leave(refused)
        elif isinstance(frame, ServerShutdown):
            self.connection.rotate("the exchange announced a shutdown")

    def _on_quote(self, quote: BookTicker, received_us: int, *, is_held: bool) -> None:
        self._quiet[quote.symbol] = self._clock_s(), QUIET_S
        symbol = symbol_of(self.market, quote.symbol)
        known = self._fan.newest(symbol)
        if known is not None and (
            known.update_id == quote.update_id or (is_held and quote.update_id < known.update_id)
        ):
            return
        self._fan.publish(
            BookTickerUpdate(
                symbol,
                quote.update_id,
                quote.bid_price,
                quote.bid_quantity,
                quote.ask_price,
                quote.ask_quantity,
                microseconds(quote.event_time) if quote.event_time else None,
                received_us,
            )
        )


def quote_line(settings: Settings, market: Market, fan: BookTickerHub) -> BookTickerConnection:
    """A line to the exchange of the settings."""
    # USD-M routes quotes as single trades.
    url = endpoints_of(settings, market).stream_url_for("trade")
    return BookTickerConnection(
        market,
        fan,
        lambda line: StreamConnection(
            url,
            name=f"{market.value}-quotes",
            streams=(),
            on_texts=line.on_texts,
            on_held=line.on_held,
            on_open=lambda: None,
            on_close=lambda: None,
            stale_after_s=settings.stale_stream_s,
            rotate_after_s=settings.rotate_after_s,
            proxy=settings.proxy_for(url) or None,
        ),
    )


class BookTickers:
    """Keeps a connection to each market of which best prices are wanted.

    Args:
        make: makes a line of a market.
    """

    def __init__(self, fan: BookTickerHub, make: Callable[[Market], BookTickerConnection]) -> None:
        self.lines: dict[Market, BookTickerConnection] = {}
        """Those there are."""
        self._fan = fan
        self._make = make
        self._tasks: dict[Market, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()
        fan.on_wanted = self._changed.set

    async def run(self) -> None:
        """Stream what is wanted, until cancelled."""
        try:
            while True:
                self._changed.clear()
                await self._adapt()
                changed = asyncio.ensure_future(self._changed.wait())
                try:
                    await asyncio.wait(
                        [changed, *self._tasks.values()],
                        timeout=POLL_INTERVAL_S,
                        return_when=asyncio.FIRST_COMPLETED,
                    )
                finally:
                    changed.cancel()
                for task in self._tasks.values():
                    if task.done():
                        task.result()  # raises what ended it
        finally:
            await end_connections(self._tasks.values(), of=CARRIED)

    async def _adapt(self) -> None:
        wanted = self._fan.wanted
        for market in Market:
            names = frozenset(exchange_symbol_of(one) for one in wanted if market_of(one) is market)
            line = self.lines.get(market)
            if line is None and names:
                line = self.lines[market] = self._make(market)
                line.want(names)
                self._tasks[market] = asyncio.create_task(line.connection.run(), name="quotes")
            elif line is not None and names:
                line.want(names)
                line.look()
            elif line is not None:
                del self.lines[market]
                await end_connections([self._tasks.pop(market)], of=CARRIED)


def _streams(names: frozenset[str]) -> list[str]:
    return [f"{name.lower()}@bookTicker" for name in sorted(names)]
