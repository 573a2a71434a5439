"""Consistency of the ledgers: broken proofs, and contradictions without a reason."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any, Final

import psycopg
from psycopg.rows import dict_row

from include.domain.instruments import UM_SUFFIX, Market, market_of
from include.domain.timeframes import from_us, minute_of, to_us
from simulator.server import ExchangeThread
from streamer.symbols.symbol_selection import GONE_AFTER_US

CONFIRMING: Final = frozenset({"kline", "rest"})
"""Sources that are the exchange's own word for a candle."""
COMPARED: Final = (
    "open", "high", "low", "close", "volume", "quote_volume", "trade_count",
    "first_trade_id", "last_trade_id",
)  # fmt: skip
"""Receives a contradiction."""
Reused = Mapping[str, Set[int]]
"""By symbol, the first minute of each instrument that got the ticker of another."""


def reused_tickers(exchange: ExchangeThread) -> Reused:
    """Where trade ids restart, because another instrument begins."""
    return {
        name if market == "spot" else f"{name}{UM_SUFFIX}": {
            minute_of(session.start_us)
            for session in list(listed.history(name).calendar.listings())[1:]
        }
        for market, listed in exchange.markets.items()
        for name in listed
    }


def given_up(exchange: ExchangeThread) -> Mapping[str, int]:
    """By delisted symbol: when it may be given up.

    USD-M sends empty candles of it for ever; the streamer drops it after an hour.
    """
    return {
        name if market == "spot" else f"{name}{UM_SUFFIX}": last.stop_us + GONE_AFTER_US
        for market, listed in exchange.markets.items()
        for name in listed
        if (last := listed.history(name).calendar.sessions[-1]).ends_listing
        and last.stop_us is not None
    }


def unproven(
    database_url: str, began_us: Mapping[str, int], until_us: int, reused: Reused
) -> list[str]:
    """Return candles in [began, until) whose trade ids do not follow, or with missing minutes
    before them.

    The only valid reason is a ticker that was given to another instrument, of which spot's
    exchange announces no start: the first candle with ids after that may break the order.
    """
    found = []
    with psycopg.connect(database_url, row_factory=dict_row) as connection:
        for symbol, start_us in began_us.items():
            rows = connection.execute(
                "SELECT * FROM ops.candle_evidence(%s, %s, %s)"
                " WHERE is_broken OR missing_minutes > 0 OR contradicted_by && %s"
                " ORDER BY open_time",
                (symbol, from_us(start_us), from_us(until_us), sorted(CONFIRMING)),
            ).fetchall()
            begins = sorted(reused.get(symbol, ()))
            for row in rows:
                if _is_restart(row, begins):
                    while begins and begins[0] <= to_us(row["open_time"]):
                        del begins[0]
                    continue
                found.append(
                    f"{symbol} {row['open_time']:%d %H:%M}: its ids {row['continuity']}, "
                    f"{row['missing_minutes']} minutes missing before it, "
                    f"contradicted by {row['contradicted_by']}"
                )
    return found


def _is_restart(row: dict[str, Any], begins: list[int]) -> bool:
    return (
        bool(begins)
        and begins[0] <= to_us(row["open_time"])
        and row["continuity"] in ("overlaps", "skips")
        and not row["missing_minutes"]
        and CONFIRMING.isdisjoint(
            row["contradicted_by"] or ()
        )  # aggregated candles: see ``unexplained``
    )


def unexplained(database_url: str) -> list[str]:
    """Return contradictions that nothing explains.

    A partial candle lacks trades by definition, and an unconfirmed one may: its last ones were lost
    with the closed kline, and nothing later showed them. On USD-M, aggTrades leave out fills of the
    insurance fund and of ADL, which klines count: an aggregated candle has less, by design.
    """
    with psycopg.connect(database_url, row_factory=dict_row) as connection:
        rows = connection.execute(
            "SELECT * FROM ops.discrepancies AS d"
            " JOIN market.candles_1m AS c USING (symbol, open_time)"
            " WHERE d.loser_status <> 'partial' ORDER BY symbol, open_time"
        ).fetchall()
    return [
        f"{row['symbol']} {row['open_time']:%d %H:%M}: {row['loser_status']} by "
        f"{row['loser_source']} was contradicted by {row['winner_source']}: "
        + ", ".join(
            f"{name} {row[f'loser_{name}']}, not {row[name]}"
            for name in COMPARED
            if row[f"loser_{name}"] != row[name]
        )
        for row in rows
        if not (
            (market_of(row["symbol"]) is Market.UM or row["loser_status"] == "unconfirmed")
            and row["loser_source"] == "stream"
            and row["loser_trade_count"] < row["trade_count"]
            and row["loser_volume"] <= row["volume"]
        )
    ]
