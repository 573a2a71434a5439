"""Trades and book tickers of a simulated exchange, in the form that raw capture stores."""

from __future__ import annotations

import itertools
import time
from decimal import Decimal
from typing import Any

from include.domain.instruments import exchange_symbol_of, market_of
from simulator.market.trades.columns import FillKind, TradeColumns
from simulator.server import ExchangeThread
from simulator.wire.payloads import KIND_NAMES, agg_trade_rows, fill_price, fills_of

Row = tuple[Any, ...]
Quote = tuple[int, Row]
"""Time of the exchange (µs) and values."""

NEVER_US = 1 << 62
MAX_ROWS = 10_000_000


def listings_of(exchange: ExchangeThread, symbol: str) -> list[tuple[int, int]]:
    """From when to when (µs) each instrument had the name."""
    market = exchange.markets[market_of(symbol).value]
    calendar = market.history(exchange_symbol_of(symbol)).calendar
    begins = [session.start_us for session in calendar.listings()]
    return list(itertools.pairwise([*begins, NEVER_US]))


def in_machine_time(exchange: ExchangeThread, moment_us: int) -> int:
    """When it was a time of the exchange, by the machine's clock."""
    clock = exchange.clock
    behind_ns = time.monotonic_ns() - clock.monotonic_at(moment_us)
    return (time.time_ns() - behind_ns) // 1_000


def in_exchange_time(exchange: ExchangeThread, moment_us: int) -> int:
    """A time of the machine's clock or of the exchange's, in the exchange's."""
    now_us, machine_us = exchange.clock.now_us(), time.time_ns() // 1_000
    if abs(moment_us - now_us) < abs(moment_us - machine_us):
        return moment_us
    behind_ns = (machine_us - moment_us) * 1_000
    return exchange.clock.time_at(time.monotonic_ns() - behind_ns)


def _trades(exchange: ExchangeThread, symbol: str, from_us: int, until_us: int) -> TradeColumns:
    market = exchange.markets[market_of(symbol).value]
    return market.agg_trades(
        exchange_symbol_of(symbol),
        view_us=until_us - 1,
        start_us=from_us,
        limit=MAX_ROWS,
    )


def trades_of(
    exchange: ExchangeThread, dataset: str, symbol: str, from_us: int, until_us: int
) -> dict[tuple[int, int], Row]:
    """Trades by time and id; USD-M has times in ms."""
    unit_us = 1 if market_of(symbol).value == "spot" else 1_000
    trades = _trades(exchange, symbol, from_us // 1_000 * 1_000, until_us)
    if dataset == "agg_trades":
        return {
            (row["T"] * unit_us, row["a"]): (
                Decimal(row["p"]), Decimal(row["q"]), row["f"], row["l"], row["m"],
            )
            for row in agg_trade_rows(trades, unit_us=unit_us)
        }  # fmt: skip
    unit = trades.instrument
    found = {}
    for row in range(len(trades)):
        time_us = int(trades.time_us[row]) // unit_us * unit_us
        for number, quantity, kind in fills_of(trades, row):
            if kind is not FillKind.VOID:
                found[time_us, number] = (
                    Decimal(unit.format_price(fill_price(trades, row, kind))),
                    Decimal(unit.format_quantity(quantity)),
                    bool(trades.buyer_is_maker[row]),
                    KIND_NAMES[kind] if unit.market == "um" else None,
                )
    return found


def has_book_tickers(exchange: ExchangeThread, symbol: str, from_us: int, until_us: int) -> bool:
    """Whether the best prices of a symbol change between two times."""
    book = exchange.markets[market_of(symbol).value].book(exchange_symbol_of(symbol))
    step = book.next_moving_step(book.step_at(from_us) + 1)
    return step is not None and step < book.step_at(until_us)


def book_tickers_of(
    exchange: ExchangeThread, symbol: str, lowest: int, highest: int
) -> dict[int, Quote]:
    """Time and best prices by update id, from one id to another."""
    book = exchange.markets[market_of(symbol).value].book(exchange_symbol_of(symbol))
    unit = book.instrument
    found: dict[int, Quote] = {}
    step = book.start_us // book.step_us + 1
    # Ids ascend with the steps: the first step is found by halving.
    last = book.step_at(exchange.clock.now_us())
    while step < last:
        middle = (step + last) // 2
        step, last = (middle + 1, last) if book.update_id(middle) < lowest else (step, middle)
    step -= 1
    while (moving := book.next_moving_step(step)) is not None:
        for best in book.best_updates(moving):
            if best.update_id > highest:
                return found
            if best.update_id < lowest:
                continue
            values = (
                Decimal(unit.format_price(best.bid)),
                Decimal(unit.format_quantity(best.bid_quantity)),
                Decimal(unit.format_price(best.ask)),
                Decimal(unit.format_quantity(best.ask_quantity)),
            )
            found[best.update_id] = (best.time_us, values)
        step = moving + 1
    return found
