"""What readers saw: the hub's published bars and the live view, against the exchange."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import psycopg
from psycopg.rows import dict_row

from include.domain.instruments import Market, market_of
from include.domain.timeframes import MINUTE_US, from_us, minute_of, to_us
from simulator.server import ExchangeThread
from tests.chaos.oracle.capture.exchanged import trades_of
from tests.chaos.oracle.verdict import Truth
from tests.chaos.stage.reader import Published, values_of
from tests.integration.faults.staging import values_of as values_of_row

MARGIN_US = 2 * MINUTE_US
OPEN_MINUTES = 10
"""Of the exchange: an open candle of the view is no older where a machine is busy."""


def unpublished(
    connections: Sequence[Published],
    true: Truth,
    symbols: Sequence[str],
    span: tuple[int, int],
    given_up: Mapping[str, int],
) -> list[str]:
    """Return bars that the hub published wrongly.

    No state of a bar goes back. The last connection received every minute of the calm of the
    symbols that it was told of, verified and with the exchange's values.

    Args:
        span: the calm; the newest minutes may still come.
    """
    found = [one for connection in connections for one in connection.wrong]
    if not connections or connections[-1].has_missed:
        return found
    last = connections[-1]
    start_us = max(span[0], last.since_us) + MARGIN_US
    told = {symbol for symbol, _ in last.bars}
    for symbol in told.intersection(symbols):
        until_us = min(span[1] - MARGIN_US, given_up.get(symbol, span[1]))
        for minute_us, values in true[symbol].items():
            if start_us <= minute_us < until_us:
                bar = last.bars.get((symbol, minute_us))
                name = f"{symbol} {from_us(minute_us):%d %H:%M}"
                if bar is None:
                    found.append(f"{name}: the hub did not publish it")
                elif not bar["is_closed"] or bar["status"] != "verified":
                    found.append(f"{name}: the hub published it as {bar['status']}")
                elif values_of(bar) != values:
                    found.append(f"{name}: the hub published {values_of(bar)}, true is {values}")
    return found


def wrong_in_view(database_url: str, exchange: ExchangeThread, symbols: Sequence[str]) -> list[str]:
    """Return rows of the live view that differ from the table or the exchange's trades."""
    with psycopg.connect(database_url, row_factory=dict_row) as connection:
        since = from_us(minute_of(exchange.clock.now_us()) - 120 * MINUTE_US)
        stored = connection.execute(
            "SELECT * FROM market.candles_1m WHERE open_time >= %s", (since,)
        ).fetchall()
        shown = connection.execute(
            "SELECT * FROM market.candles_1m_live WHERE open_time >= %s AND symbol = ANY(%s)",
            (since, list(symbols)),
        ).fetchall()
    table = {(row["symbol"], row["open_time"]): row for row in stored}
    found = []
    for row in shown:
        name = f"{row['symbol']} {row['open_time']:%d %H:%M}"
        if row["status"] == "live":
            if to_us(row["open_time"]) < exchange.clock.now_us() - OPEN_MINUTES * MINUTE_US:
                found.append(f"{name}: still open in the live view")
            elif told := _of_open(exchange, row):
                found.append(f"{name}: {told}")
            continue
        one = table.get((row["symbol"], row["open_time"]))
        is_same = one is None or row["status"] != one["status"]
        if not (is_same or values_of_row(row) == values_of_row(one)):
            found.append(f"{name}: differs in the live view")
    return found


def _of_open(exchange: ExchangeThread, row: dict[str, Any]) -> str | None:
    """Compare an open candle of spot with the exchange's trades up to its last id."""
    if market_of(row["symbol"]) is not Market.SPOT or row["last_trade_id"] is None:
        return None
    start_us = to_us(row["open_time"])
    trades = trades_of(exchange, "trades", row["symbol"], start_us, start_us + MINUTE_US)
    known = [values for key, values in sorted(trades.items()) if key[1] <= row["last_trade_id"]]
    if not known:
        return "the live view has trades that the exchange has not"
    prices = [values[0] for values in known]
    theirs = (prices[0], max(prices), min(prices), prices[-1], sum(values[1] for values in known))
    ours = tuple(row[name] for name in ("open", "high", "low", "close", "volume"))
    if (*ours, row["trade_count"]) == (*theirs, len(known)):
        return None
    told = [str(value) for value in ours]
    return f"the live view has {told}, true is {[str(Decimal(value)) for value in theirs]}"
