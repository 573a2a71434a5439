"""Trades of the simulator, and the marts expected from trades, computed in Python."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import psycopg

from include.domain.timeframes import from_us
from simulator.market.instruments import select_instruments
from simulator.market.market import SimulatedMarket
from simulator.market.trades.columns import FillKind, TradeColumns
from simulator.wire.payloads import KIND_NAMES, fill_price, fills_of

MINUTE_US = 60_000_000
SESSION = date(2026, 11, 18)
START = datetime(2026, 11, 18, tzinfo=UTC)


@dataclass(frozen=True)
class Trade:
    """A row of agg_trades, or of trades if first and last are its own id."""

    symbol: str
    number: int
    price: Decimal
    quantity: Decimal
    first: int
    last: int
    at: datetime
    is_buyer_maker: bool
    trade_type: str | None = None

    @property
    def minute(self) -> datetime:
        return self.at.replace(second=0, microsecond=0)


def store_trades(
    connection: psycopg.Connection[Any], trades: Iterable[Trade], dataset: str = "agg_trades"
) -> None:
    """Append trades to their table in one statement, as the capture does."""
    trades = list(trades)
    with connection.cursor() as cursor:
        for day in {trade.at.date() for trade in trades}:
            cursor.execute(
                "SELECT ops.ensure_partition(%s::regclass, %s)",
                (f"market.{dataset}", datetime(day.year, day.month, day.day, tzinfo=UTC)),
            )
        columns = (
            "agg_trade_id, price, quantity, first_trade_id, last_trade_id"
            if dataset == "agg_trades"
            else "trade_id, price, quantity"
        )
        own = "" if dataset == "agg_trades" else ", trade_type"
        with cursor.copy(
            f"COPY market.{dataset} (symbol, day, {columns}, trade_time, is_buyer_maker{own})"
            " FROM STDIN"
        ) as copy:
            for one in trades:
                ids = (one.first, one.last) if dataset == "agg_trades" else ()
                types = () if dataset == "agg_trades" else (one.trade_type,)
                values = (one.symbol, one.at.date(), one.number, one.price, one.quantity)
                copy.write_row((*values, *ids, one.at, one.is_buyer_maker, *types))


class SimulatedDay:
    """A UTC day of a symbol in the simulator."""

    def __init__(self, market: str, exchange_symbol: str) -> None:
        instruments = select_instruments(market, (exchange_symbol,), seed=1)  # type: ignore[arg-type]
        self.start_us = int(START.timestamp()) * 1_000_000
        self.market = SimulatedMarket(instruments, seed=1, start_us=self.start_us)
        self.instrument = self.market.instrument(exchange_symbol)
        self.symbol = exchange_symbol + (".P" if market == "um" else "")

    def tape(self, first_minute: int, minutes: int) -> TradeColumns:
        begin = self.start_us // MINUTE_US + first_minute
        return self.market.history(self.instrument.symbol).trades(begin, begin + minutes)

    def aggregates(self, first_minute: int, minutes: int) -> list[Trade]:
        """aggTrades as the exchange sends them."""
        tape, show = self.tape(first_minute, minutes), self.instrument
        return [
            Trade(
                self.symbol,
                int(tape.agg_id[row]),
                Decimal(show.format_price(int(tape.price[row]))),
                Decimal(show.format_quantity(int(tape.quantity[row]))),
                int(tape.first_id[row]),
                int(tape.first_id[row]) + int(tape.fills[row]) - 1,
                from_us(int(tape.time_us[row])),
                bool(tape.buyer_is_maker[row]),
            )
            for row in range(len(tape))
        ]

    def fills(self, first_minute: int, minutes: int) -> list[Trade]:
        """Trades as the exchange sends them, without void ones."""
        tape, show = self.tape(first_minute, minutes), self.instrument
        return [
            Trade(
                self.symbol,
                number,
                Decimal(show.format_price(fill_price(tape, row, kind))),
                Decimal(show.format_quantity(quantity)),
                number,
                number,
                from_us(int(tape.time_us[row])),
                bool(tape.buyer_is_maker[row]),
                KIND_NAMES[kind] if self.symbol.endswith(".P") else None,
            )
            for row in range(len(tape))
            for number, quantity, kind in fills_of(tape, row)
            if kind != FillKind.VOID
        ]

    def store_candles(
        self, connection: psycopg.Connection[Any], first_minute: int, minutes: int
    ) -> None:
        """Store the exchange's minutes."""
        show, begin = self.instrument, self.start_us + first_minute * MINUTE_US
        klines = self.market.klines(
            show.symbol,
            "1m",
            begin,
            begin + (minutes - 1) * MINUTE_US,
            view_us=begin + minutes * MINUTE_US,
        )
        connection.execute(
            "SELECT ops.ensure_partition('market.candles_1m'::regclass, %s)", (START,)
        )
        with connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO market.candles_1m (symbol, open_time, open, high, low, close, volume,"
                " quote_volume, trade_count, taker_buy_volume, taker_buy_quote_volume, status,"
                " source, source_rank, evidence_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s,"
                " %s, 'verified', 'rest', 80, '2026-11-20')",
                [
                    (
                        self.symbol,
                        from_us(kline.open_time_us),
                        *(
                            show.format_price(price)
                            for price in (kline.open, kline.high, kline.low, kline.close)
                        ),
                        show.format_quantity(kline.volume),
                        show.format_quote(kline.quote_volume),
                        kline.trade_count,
                        show.format_quantity(kline.taker_buy_volume),
                        show.format_quote(kline.taker_buy_quote_volume),
                    )
                    for kline in klines
                ],
            )


# --- expected marts


def step_of(high: Decimal, tick: Decimal) -> Decimal:
    """Bucket width: the widest of 1, 2, 10, 20, 100 … ticks within 5 basis points."""
    step, factor = tick, 2
    while step * factor <= high * 5 / 10_000:
        step, factor = step * factor, 7 - factor  # 2, then 5
    return step


def footprint_of(trades: Iterable[Trade], tick: Decimal) -> dict[tuple[Any, ...], Any]:
    """Step, bid and ask volume, trades and ids by symbol, minute and bucket."""
    minutes: dict[tuple[str, datetime], list[Trade]] = defaultdict(list)
    for trade in trades:
        minutes[trade.symbol, trade.minute].append(trade)
    found: dict[tuple[Any, ...], Any] = {}
    for (symbol, minute), held in minutes.items():
        step = step_of(max(trade.price for trade in held), tick)
        buckets: dict[Decimal, list[Trade]] = defaultdict(list)
        for trade in held:
            buckets[trade.price // step * step].append(trade)
        for low, inside in buckets.items():
            found[symbol, minute, low] = (
                step,
                sum(t.quantity for t in inside if t.is_buyer_maker),
                sum(t.quantity for t in inside if not t.is_buyer_maker),
                sum(t.last - t.first + 1 for t in inside),
                min(t.first for t in inside),
                max(t.last for t in inside),
            )
    return found


def profile_of(footprint: dict[tuple[Any, ...], Any]) -> dict[Decimal, tuple[Decimal, ...]]:
    """Bid volume, ask volume and trades of one symbol's session by bucket."""
    step = max(values[0] for values in footprint.values())
    found: dict[Decimal, list[Decimal]] = defaultdict(lambda: [Decimal(0)] * 3)
    for (_, _, low), values in footprint.items():
        bucket = found[low // step * step]
        for place in range(3):
            bucket[place] += values[1 + place]
    return {low: tuple(sums) for low, sums in found.items()}


def area_of(profile: dict[Decimal, tuple[Decimal, ...]], step: Decimal) -> tuple[Decimal, ...]:
    """Point of control, value area low and high and volume, computed by prices."""
    volume = {low: sides[0] + sides[1] for low, sides in profile.items()}
    lowest, highest = min(volume), max(volume)
    middle = (lowest + highest) / 2
    control = min(volume, key=lambda low: (-volume[low], abs(low - middle), low))
    low = high = control
    held, wanted = volume[control], sum(volume.values()) * Decimal("0.7")
    while held < wanted:
        above = [high + n * step for n in (1, 2) if high + n * step <= highest]
        below = [low - n * step for n in (1, 2) if low - n * step >= lowest]
        up, down = (sum(volume.get(at, Decimal(0)) for at in side) for side in (above, below))
        if above and (not below or up >= down):
            high, held = above[-1], held + up
        else:
            low, held = below[-1], held + down
    return control + step / 2, low, high + step, held
