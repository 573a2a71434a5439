"""Streams of trades and klines: each a lazy sequence of frames by due time."""

from collections.abc import Callable, Iterator

from simulator.clock import MINUTE_US
from simulator.market.history import History
from simulator.market.intervals import Interval
from simulator.market.klines import Kline
from simulator.market.market import SimulatedMarket
from simulator.market.open_klines import OpenKline, extend_kline
from simulator.market.trades.columns import TradeColumns
from simulator.streams.feeds.schedule import (
    KlineClose,
    KlineUpdate,
    agg_trades_due,
    kline_events,
    trades_due,
)
from simulator.streams.hub import Render
from simulator.wire.payloads import RowText, agg_trade_text, kline_payload, trade_payloads

_LOOKBACK_US = 1_000_000  # frames may be due this long after their trade

DueFrame = tuple[int, Render]


def agg_trade_feed(history: History, from_us: int) -> Iterator[DueFrame]:
    """Yield `aggTrade` frames due from `from_us` on."""
    market = history.instrument.market
    for trades in _trades_by_minute(history, from_us):
        text = agg_trade_text(trades)
        for row, due_us in enumerate(agg_trades_due(market, trades).tolist()):
            if due_us >= from_us:
                yield due_us, _render_row(text, row, due_us)


def trade_feed(history: History, from_us: int) -> Iterator[DueFrame]:
    """Yield `trade` frames due from `from_us` on; the fills of an order are due together."""
    for trades in _trades_by_minute(history, from_us):
        for row, due_us in enumerate(trades_due(trades).tolist()):
            if due_us >= from_us:
                yield due_us, _render_trades(trades, row, due_us)


def kline_feed(
    market: SimulatedMarket,
    history: History,
    interval: Interval,
    name: str,
    from_us: int,
    *,
    seed: int,
    period_us: tuple[int, int | None] = (0, None),
    payload: Callable[..., str] = kline_payload,
) -> Iterator[DueFrame]:
    """Yield `kline_<name>` frames due from `from_us` on.

    There are none in a halt on spot, or after a delisting.

    Args:
        period_us: only klines of trades in this period; its end is exclusive, None: no end.
        payload: formats a frame, see `kline_payload`.
    """
    for minute in history.kline_minutes(from_us // MINUTE_US):
        earlier = _Earlier(market, history, interval, minute)
        for event in kline_events(history, minute, interval=interval.name, seed=seed):
            shown_us = event.end_us - 1 if isinstance(event, KlineClose) else event.due_us
            if event.due_us < from_us or shown_us < period_us[0]:
                continue
            if period_us[1] is not None and shown_us >= period_us[1]:
                return
            if isinstance(event, KlineClose):
                closed = earlier.closed_at(event.end_us)
                if closed is not None:
                    yield event.due_us, _render_kline(history, closed, name, event, payload)
            else:
                if event.row >= len(history.minute(minute)):
                    return  # a halt was added meanwhile; the feed is opened again from there
                current = earlier.open_after(event)
                yield event.due_us, _render_kline(history, current, name, event, payload)


class _Earlier:
    """The part of a minute's klines before that minute."""

    def __init__(
        self, market: SimulatedMarket, history: History, interval: Interval, minute: int
    ) -> None:
        self._market = market
        self._history = history
        self._interval = interval
        self._minute_us = minute * MINUTE_US
        self._running: dict[int, OpenKline] = {}
        self._base: Kline | None = None
        self._has_base = False

    def closed_at(self, end_us: int) -> Kline | None:
        """Return the kline that ended at `end_us`; None if none of this interval did."""
        if self._interval.open_of(end_us) != end_us or end_us <= self._history.start_us:
            return None
        rows = self._market.klines(
            self._history.instrument.symbol, self._interval, view_us=end_us - 1, limit=1
        )
        # in a halt the latest kline is an older one
        return rows[0] if rows and rows[0].close_time_us == end_us - 1 else None

    def open_after(self, event: KlineUpdate) -> Kline:
        """Return the open kline after an update's trade."""
        trades = self._history.minute(self._minute_us // MINUTE_US)
        time_us = int(trades.time_us[event.row])
        if self._interval.name == "1s":
            open_us = self._interval.open_of(time_us)
            begin = int(trades.time_us.searchsorted(open_us))
            second = trades.between(begin, len(trades))
            running = OpenKline(
                second, open_us=open_us, close_us=self._interval.next_open(open_us) - 1
            )
            return running.after(event.row - begin, unsent_fills=event.unsent_fills)
        open_us = self._interval.open_of(self._minute_us)
        if not self._has_base:
            self._has_base = True
            if max(open_us, self._history.start_us) < self._minute_us:
                rows = self._market.klines(
                    self._history.instrument.symbol,
                    self._interval,
                    view_us=self._minute_us - 1,
                    limit=1,
                )
                self._base = rows[0] if rows and rows[0].open_time_us == open_us else None
        running = self._running.setdefault(
            open_us,
            OpenKline(trades, open_us=open_us, close_us=self._interval.next_open(open_us) - 1),
        )
        later = running.after(event.row, unsent_fills=event.unsent_fills)
        return extend_kline(self._base, later)


def _trades_by_minute(history: History, from_us: int) -> Iterator[TradeColumns]:
    minute = max(history.start_minute, (from_us - _LOOKBACK_US) // MINUTE_US)
    while (traded := history.next_traded_minute(minute)) is not None:
        yield history.minute(traded)
        minute = traded + 1


def _render_row(text: RowText, row: int, due_us: int) -> Render:
    return lambda unit_us: [text(row, due_us, unit_us)]


def _render_trades(trades: TradeColumns, row: int, due_us: int) -> Render:
    return lambda unit_us: trade_payloads(trades, row, event_us=due_us, unit_us=unit_us)


def _render_kline(
    history: History,
    kline: Kline,
    interval: str,
    event: KlineUpdate | KlineClose,
    payload: Callable[..., str],
) -> Render:
    return lambda unit_us: [
        payload(
            history.instrument,
            kline,
            interval=interval,
            is_closed=isinstance(event, KlineClose),
            event_us=event.due_us,
            unit_us=unit_us,
        )
    ]
