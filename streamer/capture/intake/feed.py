"""Decode trades, book tickers, liquidations and depth of one connection for raw capture."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial

from include.binance.streams.book_tickers import BookTicker, decode_captured
from include.binance.streams.depth import DEPTH_STREAM, DepthUpdate, decode_book_frame
from include.binance.streams.liquidations import (
    FORCE_ORDER,
    ForceOrder,
    decode_with_liquidations,
)
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
from streamer.exchange.feed import Feed
from streamer.exchange.liquidations import HEARTBEATS

KINDS = ("aggTrade", "trade", "bookTicker", FORCE_ORDER, DEPTH_STREAM)


def streams_beside(market: Market, kinds: Iterable[str]) -> list[str]:
    """Return the streams of a connection that belong to none of its symbols."""
    heartbeat = HEARTBEATS.get(market)
    return [heartbeat] if heartbeat is not None and FORCE_ORDER in kinds else []


class CaptureFeed(Feed):
    """Passes the frames of one connection to the intake.

    Args:
        kinds: streams of each symbol, such as ``bookTicker``.
        names: the exchange's names of symbols.
        on_missed: called at the first frame after a disconnect, before that frame is stored, with
            the feed and the times (µs, wall clock) between which frames may be missing.
        on_revived: called with the feed, kind of stream and name when a dead stream delivers.
        now_us: wall clock.

    Attributes:
        seen: names with a message since the reader cleared the set, by kind of stream.
        since_us: wall clock time since which the streams of a name are delivered.
        dead: names whose stream is known to be dead, by kind of stream.
        watched_kinds: kinds of streams whose silence is suspicious while a symbol trades.
        disconnect_event_us: event time of the newest trade before the last disconnect; 0 without.
    """

    def __init__(
        self,
        url: str,
        market: Market,
        kinds: Sequence[str],
        names: Collection[str],
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
        super().__init__(market, kinds)
        self.url = url
        self.names = set(names)
        self.seen: dict[str, set[str]] = {kind: set() for kind in KINDS}
        self.watched_kinds = tuple(kind for kind in kinds if kind != FORCE_ORDER)
        self.since_us: dict[str, int] = {}
        self.dead: dict[str, set[str]] = {kind: set() for kind in KINDS}
        self.disconnect_event_us = 0
        self._unacknowledged = set(names)
        self._event_time = 0  # greatest event time of a trade, in the exchange's unit
        self._seen_book_tickers = self.seen["bookTicker"]
        self._dead_book_tickers = self.dead["bookTicker"]
        decode_other = decode_with_liquidations if FORCE_ORDER in kinds else decode_captured
        self._decode = (
            partial(decode_book_frame, decode_other=decode_other)
            if DEPTH_STREAM in kinds
            else decode_other
        )
        self._intake = intake
        self._on_missed = on_missed
        self._on_revived = on_revived
        self._now_us = now_us
        self._received_us = now_us()  # time of the last message
        self._age_us = 0  # time of the current message
        self._disconnected_us: int | None = None
        self._is_disconnect_reported = False
        self.connection = StreamConnection(
            url,
            name=name,
            streams=[*streams_beside(market, kinds), *self.streams_of(names)],
            on_texts=self.on_texts,
            on_held=self.on_held,
            on_open=lambda: None,
            on_close=self._closed,
            stale_after_s=stale_after_s,
            decode=self._decode,
            has_delivered=self._has_delivered,
            rotate_after_s=rotate_after_s,
            proxy=proxy,
        )

    def add(self, members: Iterable[str]) -> None:
        """Subscribe to further symbols, given by the exchange's names."""
        names = list(members)
        self._unacknowledged.update(name for name in names if name not in self.names)
        self.names.update(names)
        self.connection.subscribe(self.streams_of(names))

    def remove(self, name: str) -> None:
        """Unsubscribe from a symbol."""
        self.names.discard(name)
        self._unacknowledged.discard(name)
        self.since_us.pop(name, None)
        for dead in self.dead.values():
            dead.discard(name)
        self.connection.unsubscribe(self.streams_of([name]))

    def on_texts(self, messages: Sequence[bytes]) -> None:
        """Handle messages in order; bad ones are counted and logged, never raised."""
        for data in messages:
            self.on_text(data)
        self._note_receipt()

    def on_held(self, messages: Sequence[bytes], ages_s: Sequence[float]) -> None:
        """Handle messages that a successor received before taking over, with their ages."""
        for data, age_s in zip(messages, ages_s, strict=True):
            self._age_us = max(1, round(age_s * SECOND_US))
            self.on_text(data)
        self._age_us = 0
        self._note_receipt()

    def on_text(self, data: bytes) -> None:
        """Handle one message."""
        self.frames += 1
        try:
            frame = self._decode(data)
        except PermanentError as error:
            self.on_bad_frame(error)
            return
        # The frequent kinds first, by exact type.
        if type(frame) is BookTicker:
            if frame.symbol in self.names:
                self._seen_book_tickers.add(frame.symbol)
                if self._dead_book_tickers and frame.symbol in self._dead_book_tickers:
                    self._on_revived(self, "bookTicker", frame.symbol)
                self._intake.on_book_ticker(self.market, frame, self._age_us)
        elif type(frame) is DepthUpdate:
            if frame.symbol in self.names:
                self._note_receipt_of(DEPTH_STREAM, frame.symbol)
                self._intake.on_depth(self.market, frame)
        elif type(frame) is Trade or type(frame) is AggTrade:
            if frame.symbol in self.names:
                if frame.event_time > self._event_time:
                    self._event_time = frame.event_time
                self._note_receipt_of("trade" if type(frame) is Trade else "aggTrade", frame.symbol)
                self._intake.on_trade(self.market, frame)
        elif type(frame) is ForceOrder:
            if frame.order.symbol in self.names:
                self._intake.on_liquidation(self.market, frame, self._age_us)
        elif isinstance(frame, ControlAnswer | ServerShutdown):
            self.on_control(frame)
            return
        if self._disconnected_us is not None:
            self._report_disconnect(self._disconnected_us)

    def _note_receipt_of(self, kind: str, name: str) -> None:
        self.seen[kind].add(name)
        if name in self.dead[kind]:
            self._on_revived(self, kind, name)

    def _report_disconnect(self, disconnected_us: int) -> None:
        """Report a disconnect at the first frame, and again once all streams deliver."""
        is_over = self.connection.session.is_subscribed
        if is_over or not self._is_disconnect_reported:
            now_us = self._now_us()
            self._on_missed(self, disconnected_us, now_us)
            self._disconnected_us = None if is_over else now_us
            self._is_disconnect_reported = not is_over

    def _note_receipt(self) -> None:
        self._received_us = self._now_us()
        if self._unacknowledged and self.connection.session.is_subscribed:
            self.since_us |= dict.fromkeys(self._unacknowledged, self._received_us)
            self._unacknowledged.clear()

    def _has_delivered(self, frame: object) -> bool:
        if isinstance(frame, BookTicker):
            last_id = self._intake.last_update_id(self.market, frame.symbol)
            return last_id is not None and last_id >= frame.update_id
        if isinstance(frame, DepthUpdate):
            last_id = self._intake.last_depth_id(self.market, frame.symbol)
            return last_id is not None and last_id >= frame.last_update_id
        if isinstance(frame, AggTrade | Trade):
            return self._event_time >= frame.event_time
        return True

    def _closed(self) -> None:
        # From the last message on: a dead connection is silent for long before it is closed.
        if self._disconnected_us is None:
            self._disconnected_us = self._received_us
            self.disconnect_event_us = microseconds(self._event_time) if self._event_time else 0
