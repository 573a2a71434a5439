"""What an aggregator knows of a minute, and how long it waits for more."""

from __future__ import annotations

from dataclasses import dataclass

from include.binance.streams.messages import AggTrade, Kline, Trade
from include.domain.candles import Candle
from include.domain.fold import CandleBuilder
from include.domain.timeframes import minute_of


@dataclass(slots=True, eq=False)
class Minute:
    """What is known of one minute."""

    open_time_us: int
    builder: CandleBuilder | None = None
    is_whole: bool = False
    frame: Kline | None = None
    """The latest frame of the exchange's open candle, until it is closed."""
    kline: Kline | None = None
    """The closed kline, once it came."""
    is_closed: bool = False
    is_settled: bool = False
    is_marked: bool = False
    """Whether a listener knows that it changed and has not looked yet."""

    @property
    def folded_to(self) -> int:
        """The last trade id of its fold; −1 where there is none."""
        return -1 if self.builder is None else self.builder.last_trade_id

    def is_news(self, kline: Kline) -> bool:
        """Whether a closed kline says something later than the one that came before."""
        return self.kline is None or self.kline.event_time < kline.event_time

    def shown(self, symbol: str) -> Candle | None:
        """The candle as it stands; the exchange's latest frame where the fold is not whole."""
        latest = self.kline or self.frame
        if self.builder is not None and (self.is_whole or latest is None):
            return self.builder.candle()
        return None if latest is None else latest.candle(symbol)


class Minutes(dict[int, Minute]):
    """Those of one symbol that are in memory, by open time."""

    __slots__ = ()

    def at(self, open_time_us: int) -> Minute:
        """The minute that opens then, made where it is not known yet."""
        minute = self.get(open_time_us)
        if minute is None:
            minute = self[open_time_us] = Minute(open_time_us)
        return minute

    def have(self, trade: AggTrade | Trade, trade_us: int) -> bool:
        """Whether a trade's minute begins with it, or before it."""
        minute = self.get(minute_of(trade_us))
        builder = None if minute is None else minute.builder
        return builder is not None and 0 <= builder.first_trade_id <= trade.first_trade_id

    def unsettled(self, symbol: str) -> list[tuple[Candle, bool]]:
        """Candles not settled yet, oldest first, each with whether its minute is over."""
        left = [one for _, one in sorted(self.items()) if not one.is_settled]
        shown = [(one.shown(symbol), one.is_closed) for one in left]
        return [(candle, is_closed) for candle, is_closed in shown if candle is not None]

    def have_klines_since(self, open_time_us: int) -> bool:
        """Whether klines came of that minute or a later one."""
        return any(
            one.frame is not None or one.kline is not None
            for one in self.values()
            if one.open_time_us >= open_time_us
        )

    def forget(self, horizon_us: int) -> None:
        """Leave out those that open before this time."""
        for open_time_us in [one for one in self if one < horizon_us]:
            del self[open_time_us]


@dataclass(frozen=True, slots=True)
class Timing:
    """Waits in microseconds of the exchange's clock, and what the streams can be held to."""

    grace_us: int
    kline_timeout_us: int
    expects_klines: bool = True
    has_contiguous_ids: bool = True
    """False for raw USD-M trades, whose ids skip by design."""
