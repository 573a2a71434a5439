"""Stream book tickers while readers subscribe to them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from include.binance.streams.book_tickers import BookTicker, decode_captured
from include.binance.streams.messages import microseconds
from include.config import Settings
from include.domain.instruments import Market, symbol_of
from include.jobs.exchange import endpoints_of
from streamer.hub.on_demand import Connect, OnDemandFeed, OnDemandStreams, connecting
from streamer.hub.ticks import BookTickerUpdate
from streamer.hub.trade_hub import BookTickerHub

QUIET_S = 60.0
"""A book ticker unchanged for this long is subscribed again."""


class BookTickerFeed(OnDemandFeed):
    """Passes the book tickers of one connection to the hub."""

    def __init__(
        self,
        market: Market,
        hub: BookTickerHub,
        connect: Connect,
        *,
        names: Iterable[str] = (),
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._hub = hub
        super().__init__(
            market, "bookTicker", connect,
            names=names, quiet_s=QUIET_S, now_us=now_us, clock_s=clock_s,
        )  # fmt: skip

    def decode(self, data: bytes) -> object:
        """Decode a message."""
        return decode_captured(data)

    def on_frame(self, frame: object, received_us: int, *, is_held: bool) -> None:
        """Publish a book ticker unless it is repeated."""
        if type(frame) is not BookTicker or frame.symbol not in self.names:
            return
        self.note_message(frame.symbol)
        symbol = symbol_of(self.market, frame.symbol)
        newest = self._hub.newest(symbol)
        if newest is not None and (
            newest.update_id == frame.update_id or (is_held and frame.update_id < newest.update_id)
        ):
            return
        self._hub.publish(
            BookTickerUpdate(
                symbol,
                frame.update_id,
                frame.bid_price,
                frame.bid_quantity,
                frame.ask_price,
                frame.ask_quantity,
                microseconds(frame.event_time) if frame.event_time else None,
                received_us,
            )
        )


def connect_book_tickers(
    settings: Settings, market: Market, hub: BookTickerHub, names: Iterable[str]
) -> BookTickerFeed:
    """Create a feed with a connection to the exchange configured in the settings."""
    # USD-M serves book tickers at the URL of single trades.
    url = endpoints_of(settings, market).stream_url_for("trade")
    connect = connecting(settings, url, name=f"{market.value}-book-tickers")
    return BookTickerFeed(market, hub, connect, names=names)


def stream_book_tickers(settings: Settings, hub: BookTickerHub) -> OnDemandStreams[BookTickerFeed]:
    """Return the streams of the book tickers that readers have subscribed to."""
    return OnDemandStreams(
        hub,
        lambda market, names: connect_book_tickers(settings, market, hub, names),
        name="book_tickers",
    )
