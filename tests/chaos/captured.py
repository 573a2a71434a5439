"""Whether raw capture has the exchange's rows: each once, with its values, or a recorded gap."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

import psycopg
from psycopg import sql

from include.domain.instruments import exchange_symbol_of, market_of
from include.domain.timeframes import to_us
from simulator.market.tape import FillKind, Tape
from simulator.server import ExchangeThread
from simulator.wire.frames import agg_trade_rows, fills_of
from streamer.capture.resumption import cannot_be_asked

Row = tuple[Any, ...]
Gaps = list[tuple[int, int]]
Spans = list[tuple[tuple[int, int], tuple[int, int]]]
"""Open ranges of (time in µs, id)."""

COLUMNS = {
    "agg_trades": (
        "agg_trade_id", "price", "quantity", "first_trade_id", "last_trade_id", "is_buyer_maker",
    ),
    "trades": ("trade_id", "price", "quantity", "is_buyer_maker"),
    "book_tickers": ("update_id", "bid_price", "bid_quantity", "ask_price", "ask_quantity"),
}  # fmt: skip
NEVER_US = 1 << 62
MOST_ROWS = 10_000_000


def differences_of_capture(
    database_url: str,
    exchange: ExchangeThread,
    datasets: Iterable[str],
    symbols: Iterable[str],
    until_us: int,
) -> list[str]:
    """What is not as it must be of trades made before a moment, and of all quotes.

    From the first row of a listing on, each trade of the exchange is there, unless an entry of
    ``ops.gaps`` says that it was missed; none is there that the exchange does not have.

    Quotes and the single trades of USD-M cannot be asked for again; their gaps are in the time of
    the machine. Of them none is false, and where some lack there is a gap.
    """
    found: list[str] = []
    for dataset in datasets:
        for symbol in symbols:
            rows = _stored(database_url, dataset, symbol)
            if not rows:
                continue
            gaps = _gaps(database_url, dataset, symbol)
            where = f"{dataset} of {symbol}"
            if dataset == "book_tickers":
                found += _of_quotes(rows, quotes_of(exchange, symbol, *_bounds(rows)), gaps, where)
            else:
                theirs = trades_of(exchange, dataset, symbol, rows[0][0], until_us)
                ours = {key: values for key, values in _by_key(rows).items() if key[0] < until_us}
                if gaps and cannot_be_asked(dataset, market_of(symbol)):
                    gaps = [(0, until_us)]
                free = _not_held(exchange, symbol, ours)
                theirs = {key: one for key, one in theirs.items() if not _within(key, free)}
                found += _of_trades(ours, theirs, gaps, where)
    return found


def _not_held(exchange: ExchangeThread, symbol: str, ours: Iterable[tuple[int, int]]) -> Spans:
    """Of each instrument that had the name, what came before its first row."""
    market = exchange.markets[market_of(symbol).value]
    calendar = market.history(exchange_symbol_of(symbol)).calendar
    begins = [session.start_us for session in calendar.listings()]
    spans = []
    for start_us, next_us in itertools.pairwise([*begins, NEVER_US]):
        of_listing = [key for key in ours if start_us <= key[0] < next_us]
        spans.append(((start_us, -1), min(of_listing, default=(next_us, -1))))
    return spans


def _within(key: tuple[int, int], spans: Spans) -> bool:
    return any(after < key < before for after, before in spans)


def rows_captured(database_url: str) -> int:
    """Rows of raw capture in all."""
    with psycopg.connect(database_url) as connection:
        row = connection.execute(
            "SELECT (SELECT count(*) FROM market.agg_trades)"
            " + (SELECT count(*) FROM market.trades)"
            " + (SELECT count(*) FROM market.book_tickers)"
        ).fetchone()
    return 0 if row is None else int(row[0])


def _of_trades(
    ours: Mapping[tuple[int, int], Row], theirs: Mapping[tuple[int, int], Row], gaps: Gaps,
    where: str,
) -> list[str]:  # fmt: skip
    if not ours:
        return []  # its first row is younger
    first = min(ours)
    expected = {key for key in theirs if key >= first}
    missing = [
        key
        for key in sorted(expected - ours.keys())
        if not any(start <= key[0] < end for start, end in gaps)
    ]
    found = []
    if missing:
        found.append(f"{where}: {len(missing)} missing without a gap, from id {missing[0][1]} on")
    for key in sorted(ours):
        if key not in theirs:
            found.append(f"{where}: {key[1]} is none of the exchange's")
        elif ours[key] != theirs[key]:
            found.append(f"{where}: {key[1]} is {ours[key]}, must be {theirs[key]}")
    return found


def _of_quotes(rows: list[Row], theirs: Mapping[int, Row], gaps: Gaps, where: str) -> list[str]:
    found = []
    for row in rows:
        if theirs.get(row[1]) != row[2:]:
            found.append(f"{where}: {row[1]} is {row[2:]}, must be {theirs.get(row[1])}")
    lacking = sorted(theirs.keys() - {row[1] for row in rows})
    if lacking and not gaps:
        found.append(f"{where}: {len(lacking)} missing without a gap, from id {lacking[0]} on")
    return found


# --- the table


def _stored(database_url: str, dataset: str, symbol: str) -> list[Row]:
    """Rows as (time in µs, id, values …), by time and id."""
    time = "received_at" if dataset == "book_tickers" else "trade_time"
    query = sql.SQL("SELECT {}, {} FROM market.{} WHERE symbol = %s ORDER BY 1, 2").format(
        sql.Identifier(time),
        sql.SQL(", ").join(map(sql.Identifier, COLUMNS[dataset])),
        sql.Identifier(dataset),
    )
    with psycopg.connect(database_url) as connection:
        return [
            (to_us(row[0]), *row[1:]) for row in connection.execute(query, (symbol,)).fetchall()
        ]


def _gaps(database_url: str, dataset: str, symbol: str) -> Gaps:
    with psycopg.connect(database_url) as connection:
        found = connection.execute(
            "SELECT from_time, to_time FROM ops.gaps WHERE dataset = %s AND symbol = %s",
            (dataset, symbol),
        ).fetchall()
    return [(to_us(start), to_us(end)) for start, end in found]


def _by_key(rows: Iterable[Row]) -> dict[tuple[int, int], Row]:
    return {(row[0], row[1]): tuple(row[2:]) for row in rows}


# --- the exchange


def _tape(exchange: ExchangeThread, symbol: str, from_us: int, until_us: int) -> Tape:
    market = exchange.markets[market_of(symbol).value]
    return market.agg_trades(
        exchange_symbol_of(symbol),
        view_us=until_us - 1,
        start_us=from_us,
        limit=MOST_ROWS,
    )


def trades_of(
    exchange: ExchangeThread, dataset: str, symbol: str, from_us: int, until_us: int
) -> dict[tuple[int, int], Row]:
    """Trades by time and id; USD-M has times in ms."""
    unit_us = 1 if market_of(symbol).value == "spot" else 1_000
    tape = _tape(exchange, symbol, from_us // 1_000 * 1_000, until_us)
    if dataset == "agg_trades":
        return {
            (row["T"] * unit_us, row["a"]): (
                Decimal(row["p"]), Decimal(row["q"]), row["f"], row["l"], row["m"],
            )
            for row in agg_trade_rows(tape, unit_us=unit_us)
        }  # fmt: skip
    unit = tape.instrument
    found = {}
    for row in range(len(tape)):
        time_us = int(tape.time_us[row]) // unit_us * unit_us
        price = Decimal(unit.format_price(int(tape.price[row])))
        for number, quantity, kind in fills_of(tape, row):
            if kind is not FillKind.VOID:
                found[time_us, number] = (
                    price,
                    Decimal(unit.format_quantity(quantity)),
                    bool(tape.buyer_is_maker[row]),
                )
    return found


def _bounds(rows: list[Row]) -> tuple[int, int]:
    return min(row[1] for row in rows), max(row[1] for row in rows)


def quotes_of(exchange: ExchangeThread, symbol: str, lowest: int, highest: int) -> dict[int, Row]:
    """Best prices by update id, from one id to another."""
    book = exchange.markets[market_of(symbol).value].book(exchange_symbol_of(symbol))
    unit = book.instrument
    found: dict[int, Row] = {}
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
            found[best.update_id] = (
                Decimal(unit.format_price(best.bid)),
                Decimal(unit.format_quantity(best.bid_quantity)),
                Decimal(unit.format_price(best.ask)),
                Decimal(unit.format_quantity(best.ask_quantity)),
            )
        step = moving + 1
    return found
