"""A small exchange for one symbol: its trades, its klines and the events of an aggregator."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal

from include.binance.streams.messages import AggTrade, Kline, KlineBody
from include.domain.candles import CandleCandidate
from include.domain.instruments import Instrument, Market
from include.domain.timeframes import MINUTE_US, SECOND_US
from streamer.candles.aggregation import SymbolAggregator
from streamer.candles.minutes import Timing

T0 = 1_700_000_000_000_000 // MINUTE_US * MINUTE_US
"""The minute in which the played exchange begins."""

GRACE = 250_000
TIMEOUT = 3 * SECOND_US
INSTRUMENT = Instrument(
    "BTCUSDT", Market.SPOT, "BTC", "USDT", "TRADING", Decimal("0.01"), Decimal("0.00001")
)
ROUNDED = Instrument(
    "ETHBTC", Market.SPOT, "ETH", "BTC", "TRADING", Decimal("0.00001"), Decimal("0.0001")
)
"""Its quote volume needs nine digits; the exchange publishes eight."""


@dataclass
class Results:
    """The events of an aggregator."""

    candidates: list[CandleCandidate] = field(default_factory=list)
    requested: list[tuple[int, str]] = field(default_factory=list)
    resubscribed: int = 0
    reasons: list[str] = field(default_factory=list)
    silences: list[tuple[int, int | None]] = field(default_factory=list)
    restarts: list[tuple[int, int]] = field(default_factory=list)
    missing: list[tuple[int, int]] = field(default_factory=list)
    differing: list[list[str]] = field(default_factory=list)
    corrections: list[list[str]] = field(default_factory=list)
    disputed: list[CandleCandidate] = field(default_factory=list)

    def candle_closed(self, candidate: CandleCandidate) -> None:
        self.candidates.append(candidate)

    def rest_needed(self, symbol: str, start_us: int, end_us: int, cause: str) -> None:
        self.requested += [(minute, cause) for minute in range(start_us, end_us, MINUTE_US)]

    def resubscribe_needed(self, symbol: str, reason: str) -> None:
        self.resubscribed += 1
        self.reasons.append(reason)

    def symbol_silent(self, symbol: str, since_us: int) -> None:
        self.silences.append((since_us, None))

    def silence_ended(self, symbol: str, since_us: int, until_us: int) -> None:
        self.silences.append((since_us, until_us))

    def trade_ids_restarted(self, symbol: str, expected_id: int, trade_id: int, at_us: int) -> None:
        self.restarts.append((expected_id, trade_id))

    def trades_missing(
        self, symbol: str, first_id: int, last_id: int, from_us: int, to_us: int
    ) -> None:
        self.missing.append((first_id, last_id))

    def kline_differs(self, symbol: str, open_time_us: int, values: list[str]) -> None:
        self.differing.append(values)

    def kline_disputed(self, kline: CandleCandidate) -> None:
        self.disputed.append(kline)

    def open_candle_corrected(self, symbol: str, open_time_us: int, values: list[str]) -> None:
        self.corrections.append(values)

    def stored(self) -> dict[int, CandleCandidate]:
        """What the merge keeps: the highest rank, then the most trades."""
        best: dict[int, CandleCandidate] = {}
        for candidate in self.candidates:
            held = best.get(candidate.candle.open_time_us)
            if held is None or (candidate.rank, candidate.candle.trade_count) > (
                held.rank,
                held.candle.trade_count,
            ):
                best[candidate.candle.open_time_us] = candidate
        return best


def trade(number: int, at_us: int, *, price: str = "10", quantity: str = "1", fills: int = 1,
          maker: bool = False, first: int | None = None) -> AggTrade:  # fmt: skip
    first = number if first is None else first
    return AggTrade(
        event_time=at_us + 5_000, symbol="BTCUSDT", id=number, price=Decimal(price),
        quantity=Decimal(quantity), first_trade_id=first, last_trade_id=first + fills - 1,
        trade_time=at_us, is_buyer_maker=maker,
    )  # fmt: skip


def kline_of(trades: list[AggTrade], open_us: int, *, closed: bool, at_us: int,
             previous: str = "10", **changes: object) -> Kline:  # fmt: skip
    """The exchange's candle, computed with plain sums."""
    inside = [t for t in trades if open_us <= t.trade_time < open_us + MINUTE_US]
    prices = [t.price for t in inside] or [Decimal(previous)]
    takers = [t for t in inside if not t.is_buyer_maker]
    values: dict[str, object] = {
        "open_time": open_us, "interval": "1m",
        "first_trade_id": inside[0].first_trade_id if inside else -1,
        "last_trade_id": inside[-1].last_trade_id if inside else -1,
        "open": prices[0], "close": prices[-1], "high": max(prices), "low": min(prices),
        "volume": sum((t.quantity for t in inside), Decimal(0)),
        "trade_count": sum(t.last_trade_id - t.first_trade_id + 1 for t in inside),
        "is_closed": closed,
        "quote_volume": sum((t.quantity * t.price for t in inside), Decimal(0)),
        "taker_buy_volume": sum((t.quantity for t in takers), Decimal(0)),
        "taker_buy_quote_volume": sum((t.quantity * t.price for t in takers), Decimal(0)),
    }  # fmt: skip
    return Kline(at_us, "BTCUSDT", KlineBody(**(values | changes)))  # type: ignore[arg-type]


def aggregator(
    results: Results, *, instrument: Instrument = INSTRUMENT, **timing: object
) -> SymbolAggregator:
    return SymbolAggregator(
        instrument,
        Timing(grace_us=GRACE, kline_timeout_us=TIMEOUT, **timing),  # type: ignore[arg-type]
        results,
    )


def begin(one: SymbolAggregator) -> None:
    """Connect before the minute T0, with everything before it stored."""
    one.resume_after(T0 - MINUTE_US)
    one.connected(T0 - 10)


def minute_trades(minute: int, first: int, count: int = 6) -> list[AggTrade]:
    """Trades of one minute, ids from ``first``."""
    step = MINUTE_US // (count + 1)
    return [
        trade(
            first + n,
            T0 + minute * MINUTE_US + (n + 1) * step,
            price=str(10 + (n * 7 + minute) % 5),
            quantity=f"0.{n + 1}",
            maker=n % 3 == 0,
        )
        for n in range(count)
    ]
