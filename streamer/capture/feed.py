"""A connection for streams that only raw capture wants: single trades and quotes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import structlog

from include.binance.frames import AggTrade, ControlAnswer, ServerShutdown, Trade
from include.binance.quotes import BookTicker, decode_captured
from include.domain.instruments import Market
from include.errors import PermanentError
from streamer.capture.intake import Intake
from streamer.connection import ROTATE_AFTER_S, StreamConnection

log = structlog.get_logger(__name__)

LOGGED_BAD_FRAMES = 10


class CaptureFeed:
    """Takes the messages of one connection.

    Args:
        streams: names to carry.
        on_missed: given the times (µs, wall clock) between which nothing came.
        now_us: wall clock.
    """

    def __init__(
        self,
        url: str,
        market: Market,
        streams: Sequence[str],
        intake: Intake,
        *,
        name: str,
        stale_after_s: float,
        on_missed: Callable[[int, int], None],
        now_us: Callable[[], int],
        rotate_after_s: float = ROTATE_AFTER_S,
        proxy: str | None = None,
    ) -> None:
        self.frames = 0
        self.bad_frames = 0
        self._market = market
        self._known = frozenset(stream.partition("@")[0] for stream in streams)
        self._intake = intake
        self._on_missed = on_missed
        self._now_us = now_us
        self._cut_us: int | None = None
        self.connection = StreamConnection(
            url,
            name=name,
            streams=list(streams),
            on_text=self.on_text,
            on_open=lambda: None,
            on_close=self._closed,
            stale_after_s=stale_after_s,
            rotate_after_s=rotate_after_s,
            proxy=proxy,
        )

    def on_text(self, data: bytes) -> None:
        """Handle one message; what cannot be used is counted and logged, never raised."""
        self.frames += 1
        try:
            frame = decode_captured(data)
        except PermanentError as error:
            self.bad_frames += 1
            if self.bad_frames <= LOGGED_BAD_FRAMES:
                log.warning("bad_frame", connection=self.connection.name, error=str(error))
            return
        kind = type(frame)
        if kind is BookTicker:
            quote = cast(BookTicker, frame)
            if quote.symbol.lower() in self._known:
                self._intake.on_quote(self._market, quote)
        elif kind is Trade or kind is AggTrade:
            trade = cast("Trade | AggTrade", frame)
            if trade.symbol.lower() in self._known:
                self._intake.on_trade(self._market, trade)
        elif isinstance(frame, ControlAnswer):
            self._on_answer(frame)
            return
        elif isinstance(frame, ServerShutdown):
            self.connection.rotate("the exchange announced a shutdown")
            return
        if self._cut_us is not None and self.connection.session.is_subscribed:
            missed_from_us, self._cut_us = self._cut_us, None
            self._on_missed(missed_from_us, self._now_us())

    def _on_answer(self, answer: ControlAnswer) -> None:
        refused = self.connection.session.on_answer(answer)
        if refused is not None:
            log.error("subscription_refused", connection=self.connection.name, what=refused)
            self.connection.leave(refused)

    def _closed(self) -> None:
        if self._cut_us is None:
            self._cut_us = self._now_us()
