"""Consistency of the ledgers: broken proofs, and contradictions without a reason."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any, Final, Protocol

import psycopg
from psycopg.rows import dict_row

from include.domain.instruments import UM_SUFFIX, exchange_symbol_of, market_of
from include.domain.timeframes import MINUTE_US, from_us, minute_of, to_us
from simulator.server import ExchangeThread
from streamer.symbols.symbol_selection import GONE_AFTER_US

CONFIRMING: Final = frozenset({"kline", "rest"})
"""Sources that are the exchange's own word for a candle."""
COMPARED: Final = (
    "open", "high", "low", "close", "volume", "quote_volume", "trade_count",
    "first_trade_id", "last_trade_id",
)  # fmt: skip
"""Receives a contradiction."""
IDS: Final = frozenset({"first_trade_id", "last_trade_id"})
Reused = Mapping[str, Set[int]]
"""By symbol, the first minute of each instrument that got the ticker of another."""


class Evidence(Protocol):
    """What the exchange's side knows about the minutes of a run."""

    def undetectable(self, symbol: str, minute_us: int) -> frozenset[str]:
        """Return the columns that a wrong closed kline may have, as no trades contradict it."""

    def wrong_kline(self, symbol: str, minute_us: int) -> set[str]:
        """Return the forms in which the closed kline of a minute may have been wrong."""

    def trade_ids(self, symbol: str, minute_us: int) -> tuple[int, int]:
        """Return the first and last trade id of a minute; −1 without trades."""


class NoEvidence:
    """Of a run without wrong klines, whose ids do not matter."""

    def undetectable(self, _symbol: str, _minute_us: int) -> frozenset[str]:
        return frozenset()

    def wrong_kline(self, _symbol: str, _minute_us: int) -> set[str]:
        return set()

    def trade_ids(self, _symbol: str, _minute_us: int) -> tuple[int, int]:
        return -1, -1


NO_EVIDENCE: Final = NoEvidence()


def exchange_ids(exchange: ExchangeThread, symbol: str, minute_us: int) -> tuple[int, int]:
    """Return the first and last trade id of a minute of the exchange; −1 without trades."""
    market = exchange.markets[market_of(symbol).value]
    bars = market.klines(
        exchange_symbol_of(symbol), "1m", minute_us, minute_us + MINUTE_US - 1,
        view_us=exchange.clock.now_us(),
    )  # fmt: skip
    return (bars[0].first_id, bars[0].last_id) if bars else (-1, -1)


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
    database_url: str,
    began_us: Mapping[str, int],
    until_us: int,
    reused: Reused,
    evidence: Evidence = NO_EVIDENCE,
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
                if evidence.wrong_kline(symbol, to_us(row["open_time"])):
                    row["contradicted_by"] = list({*(row["contradicted_by"] or ())} - {"kline"})
                if _is_restart(row, begins):
                    while begins and begins[0] <= to_us(row["open_time"]):
                        del begins[0]
                    continue
                if _may_be_of_a_wrong_kline(row, symbol, evidence):
                    continue
                found.append(
                    f"{symbol} {row['open_time']:%d %H:%M}: its ids {row['continuity']}, "
                    f"{row['missing_minutes']} minutes missing before it, "
                    f"contradicted by {row['contradicted_by']}"
                )
    return found


def _may_be_of_a_wrong_kline(row: dict[str, Any], symbol: str, evidence: Evidence) -> bool:
    """Whether a wrong kline explains a row: ``unexplained`` judges what it contradicts."""
    minute_us = to_us(row["open_time"])
    if row["missing_minutes"] or not evidence.wrong_kline(symbol, minute_us):
        return False
    if row["is_broken"]:
        is_counted_wrong = "trade_count" in evidence.undetectable(symbol, minute_us)
        return row["continuity"] == "count_mismatch" and is_counted_wrong
    return True


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


def unexplained(database_url: str, evidence: Evidence = NO_EVIDENCE) -> list[str]:
    """Return contradictions that nothing explains.

    A partial candle lacks trades by definition. An unconfirmed one may, if its first or last ones
    were lost with the closed kline and nothing later showed them: then its ids end before the
    exchange's, or begin after them. A wrong closed kline loses against REST, and a true candle
    against a wrong kline that could not be detected.
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
        if not (_lost_trades(row, evidence) or _is_of_a_wrong_kline(row, evidence))
    ]


def _lost_trades(row: dict[str, Any], evidence: Evidence) -> bool:
    if (
        row["loser_source"] != "stream"
        or row["loser_trade_count"] >= row["trade_count"]
        or row["loser_volume"] > row["volume"]
    ):
        return False
    first, last = evidence.trade_ids(row["symbol"], to_us(row["open_time"]))
    if row["loser_status"] != "unconfirmed" or row["loser_last_trade_id"] is None:
        return False
    return bool(row["loser_first_trade_id"] > first or row["loser_last_trade_id"] < last)


def _is_of_a_wrong_kline(row: dict[str, Any], evidence: Evidence) -> bool:
    """Whether a closed kline was wrong, and lost, or won where it could not be detected."""
    minute_us = to_us(row["open_time"])
    if not evidence.wrong_kline(row["symbol"], minute_us):
        return False
    if row["loser_source"] == "kline":
        return bool(row["winner_source"] == "rest")
    if row["loser_source"] != "stream":
        return False
    if row["source"] == "kline":
        return bool(evidence.undetectable(row["symbol"], minute_us))
    return row["source"] == "rest" and all(
        row[f"loser_{name}"] == row[name]
        for name in COMPARED
        if name not in IDS and name != "quote_volume"  # the kline's, where the exchange rounds
    )
