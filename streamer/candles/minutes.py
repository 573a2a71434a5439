"""The minutes of one symbol in memory, and how long they wait for trades and klines."""

from __future__ import annotations

from dataclasses import dataclass

from include.binance.streams.messages import AggTrade, Kline, Trade
from include.domain.candle_builder import CandleBuilder
from include.domain.candles import Candle
from include.domain.timeframes import minute_of


@dataclass(slots=True, eq=False)
class Minute:
    """The state of one minute.

    Attributes:
        is_whole: every trade of the minute has been aggregated.
        is_first: its first trade follows no aggregated one: ids cannot show what was lost before.
        frame: the newest kline of the open minute; None once it is closed.
        kline: the closed kline.
        is_closed: the grace has ended; no further trade is expected.
        is_emitted: its candle was emitted, or the minute was requested from REST.
        is_marked: a listener has been notified of a change that it has not read yet.
    """

    open_time_us: int
    builder: CandleBuilder | None = None
    is_whole: bool = False
    is_first: bool = False
    frame: Kline | None = None
    kline: Kline | None = None
    is_closed: bool = False
    is_emitted: bool = False
    is_marked: bool = False

    @property
    def last_trade_id(self) -> int:
        """Id of the last aggregated trade; −1 without one."""
        return -1 if self.builder is None else self.builder.last_trade_id

    def is_newer(self, kline: Kline) -> bool:
        """Whether a closed kline is newer than the one received before."""
        return self.kline is None or self.kline.event_time < kline.event_time

    def is_behind(self, kline: Kline) -> bool:
        """Whether a whole minute still lacks trades that a closed kline has."""
        return self.is_whole and self.last_trade_id < kline.body.last_trade_id

    def shown(self, symbol: str) -> Candle | None:
        """Return the current candle: aggregated if that is whole, otherwise the exchange's newest
        kline."""
        latest = self.kline or self.frame
        if self.builder is not None and (self.is_whole or latest is None):
            return self.builder.candle()
        return None if latest is None else latest.candle(symbol)


class Minutes(dict[int, Minute]):
    """Minutes of one symbol by open time."""

    __slots__ = ()

    def get_or_add(self, open_time_us: int) -> Minute:
        """Return the minute with this open time; add it if missing."""
        minute = self.get(open_time_us)
        if minute is None:
            minute = self[open_time_us] = Minute(open_time_us)
        return minute

    def include(self, trade: AggTrade | Trade, trade_us: int) -> bool:
        """Whether the candle of a trade's minute begins with this trade or an earlier one."""
        minute = self.get(minute_of(trade_us))
        builder = None if minute is None else minute.builder
        return builder is not None and 0 <= builder.first_trade_id <= trade.first_trade_id

    def live_candles(self, symbol: str) -> list[tuple[Candle, bool]]:
        """Return candles not emitted yet, oldest first, each with whether its minute is closed."""
        waiting = [one for _, one in sorted(self.items()) if not one.is_emitted]
        shown = [(one.shown(symbol), one.is_closed) for one in waiting]
        return [(candle, is_closed) for candle, is_closed in shown if candle is not None]

    def have_klines_since(self, open_time_us: int) -> bool:
        """Whether a kline of this minute or a later one has arrived."""
        return any(
            one.frame is not None or one.kline is not None
            for one in self.values()
            if one.open_time_us >= open_time_us
        )

    def drop_before(self, horizon_us: int) -> None:
        """Remove minutes with an earlier open time."""
        for open_time_us in [one for one in self if one < horizon_us]:
            del self[open_time_us]


@dataclass(frozen=True, slots=True)
class Timing:
    """Waits of a market's minutes in µs of exchange time, and properties of its streams.

    Attributes:
        has_contiguous_ids: False for single trades of futures, whose ids skip by design.
    """

    grace_us: int
    kline_timeout_us: int
    expects_klines: bool = True
    has_contiguous_ids: bool = True
