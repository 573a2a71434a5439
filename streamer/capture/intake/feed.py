"""A connection for streams that only raw capture wants: single trades and quotes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog

from include.binance.streams.book_tickers import BookTicker, decode_captured
from include.binance.streams.messages import (
    AggTrade,
    ControlAnswer,
    ServerShutdown,
    Trade,
    microseconds,
)
from include.domain.instruments import Market
from include.domain.timeframes import SECOND_US
from include.errors import PermanentError
from streamer.capture.intake.rows import Intake
from streamer.exchange.connection import ROTATE_AFTER_S, StreamConnection

log = structlog.get_logger(__name__)

LOGGED_BAD_FRAMES = 10
KINDS = ("aggTrade", "trade", "bookTicker")


class CaptureFeed:
    """Handles the messages of one connection.

    Args:
        kinds: streams of each symbol, such as ``bookTicker``.
        names: the exchange's names of symbols.
        on_missed: receives the feed and the times (µs, wall clock) between which rows may be
            missing, as soon as a message arrives: nothing is stored before that is recorded.
        on_revived: receives the feed, kind of stream and name when a dead stream delivers again.
        now_us: wall clock.

    Attributes:
        since_us: by name, since when its streams are delivered (wall clock).
        dead: names with a dead stream, by kind.
        cut_event_us: the exchange's time of the newest trade before the last disconnect; 0: none.
    """

    def __init__(
        self,
        url: str,
        market: Market,
        kinds: Sequence[str],
        names: Sequence[str],
        intake: Intake,
        *,
        name: str,
        stale_after_s: float,
        on_missed: Callable[[CaptureFeed, int, int], None],
        on_revived: Callable[[CaptureFeed, str, str], None],
        now_us: Callable[[], int],
        rotate_after_s: float = ROTATE_AFTER_S,
        proxy: str | None = None,
    ) -> None:
        self.frames = 0
        self.bad_frames = 0
        self.url = url
        self.market = market
        self.kinds = tuple(kinds)
        self.names = set(names)
        self.spoken: dict[str, set[str]] = {kind: set() for kind in KINDS}
        """Names with messages since the last reset, by kind of stream."""
        self.since_us: dict[str, int] = {}
        self.dead: dict[str, set[str]] = {kind: set() for kind in KINDS}
        self._awaited = set(names)
        self._event_time = 0
        """The greatest of a trade, in the exchange's unit."""
        self._quoted = self.spoken["bookTicker"]
        self._quotes_dead = self.dead["bookTicker"]
        self._intake = intake
        self._on_missed = on_missed
        self._on_revived = on_revived
        self._now_us = now_us
        self._heard_us = now_us()
        """Time of the last message, or of the creation of this feed."""
        self._age_us = 0
        """Age of the present message."""
        self._cut_us: int | None = None
        self._is_cut_told = False
        self.cut_event_us = 0
        self.connection = StreamConnection(
            url,
            name=name,
            streams=self._streams_of(names),
            on_texts=self.on_texts,
            on_held=self.on_held,
            on_open=lambda: None,
            on_close=self._closed,
            stale_after_s=stale_after_s,
            decode=decode_captured,
            has_delivered=self._has_delivered,
            rotate_after_s=rotate_after_s,
            proxy=proxy,
        )

    def carries(self, market: Market, url: str, name: str) -> bool:
        """Whether a symbol is streamed from there already."""
        return self.market is market and self.url == url and name in self.names

    def add(self, names: Sequence[str]) -> None:
        """Carry further symbols."""
        self._awaited.update(name for name in names if name not in self.names)
        self.names.update(names)
        self.connection.subscribe(self._streams_of(names))

    def remove(self, name: str) -> None:
        """Carry a symbol no longer."""
        self.names.discard(name)
        self._awaited.discard(name)
        self.since_us.pop(name, None)
        for dead in self.dead.values():
            dead.discard(name)
        self.connection.unsubscribe(self._streams_of([name]))

    def on_texts(self, messages: Sequence[bytes]) -> None:
        """Handle messages, in order; what cannot be used is counted and logged, never raised."""
        for data in messages:
            self.on_text(data)
        self._heard()

    def on_held(self, messages: Sequence[bytes], ages_s: Sequence[float]) -> None:
        """Handle messages that arrived some seconds ago on the new socket of a rotation."""
        for data, age_s in zip(messages, ages_s, strict=True):
            self._age_us = max(1, round(age_s * SECOND_US))
            self.on_text(data)
        self._age_us = 0
        self._heard()

    def on_text(self, data: bytes) -> None:
        """Handle one message."""
        self.frames += 1
        try:
            frame = decode_captured(data)
        except PermanentError as error:
            self.bad_frames += 1
            if self.bad_frames <= LOGGED_BAD_FRAMES:
                log.warning("bad_frame", connection=self.connection.name, error=str(error))
            return
        # The most frequent messages are recognised first, by their exact type.
        if type(frame) is BookTicker:
            if frame.symbol in self.names:
                self._quoted.add(frame.symbol)
                if self._quotes_dead and frame.symbol in self._quotes_dead:
                    self._on_revived(self, "bookTicker", frame.symbol)
                self._intake.on_quote(self.market, frame, self._age_us)
        elif type(frame) is Trade or type(frame) is AggTrade:
            if frame.symbol in self.names:
                if frame.event_time > self._event_time:
                    self._event_time = frame.event_time
                self._trade_came("trade" if type(frame) is Trade else "aggTrade", frame.symbol)
                self._intake.on_trade(self.market, frame)
        elif isinstance(frame, ControlAnswer):
            self._on_answer(frame)
            return
        elif isinstance(frame, ServerShutdown):
            self.connection.rotate("the exchange announced a shutdown")
            return
        if self._cut_us is not None:
            self._go_on(self._cut_us)

    def _trade_came(self, kind: str, name: str) -> None:
        self.spoken[kind].add(name)
        if name in self.dead[kind]:
            self._on_revived(self, kind, name)

    def _go_on(self, cut_us: int) -> None:
        """Record the first message after a disconnect, and the time when all streams deliver."""
        is_over = self.connection.session.is_subscribed
        if is_over or not self._is_cut_told:
            now_us = self._now_us()
            self._on_missed(self, cut_us, now_us)
            self._cut_us, self._is_cut_told = (None, False) if is_over else (now_us, True)

    def _heard(self) -> None:
        self._heard_us = self._now_us()
        if self._awaited and self.connection.session.is_subscribed:
            self.since_us |= dict.fromkeys(self._awaited, self._heard_us)
            self._awaited.clear()

    def _has_delivered(self, frame: object) -> bool:
        if isinstance(frame, BookTicker):
            last_id = self._intake.last_quote_id(self.market, frame.symbol)
            return last_id is not None and last_id >= frame.update_id
        if isinstance(frame, AggTrade | Trade):
            return self._event_time >= frame.event_time
        return True

    def _on_answer(self, answer: ControlAnswer) -> None:
        refused = self.connection.session.on_answer(answer)
        if refused is not None:
            log.error("subscription_refused", connection=self.connection.name, what=refused)
            self.connection.leave(refused)

    def _closed(self) -> None:
        # Noticed late: a line that is dead is silent for long before it is given up.
        if self._cut_us is None:
            self._cut_us = self._heard_us
            self.cut_event_us = microseconds(self._event_time) if self._event_time else 0

    def _streams_of(self, names: Sequence[str]) -> list[str]:
        return [f"{name.lower()}@{kind}" for name in names for kind in self.kinds]
