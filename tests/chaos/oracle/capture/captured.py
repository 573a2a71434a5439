"""Whether raw capture has the exchange's rows: each once, with its values, or a recorded gap."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TypeVar

import psycopg
from psycopg import sql

from include.domain.instruments import market_of
from include.domain.timeframes import from_us, to_us
from simulator.server import ExchangeThread
from streamer.capture.repair.resumption import cannot_be_requested
from tests.chaos.oracle.capture.exchanged import (
    Quote,
    Row,
    book_tickers_of,
    has_book_tickers,
    in_exchange_time,
    in_machine_time,
    listings_of,
    trades_of,
)
from tests.chaos.oracle.withheld import held_back_until, withheld

Key = TypeVar("Key", int, tuple[int, int])
Gaps = list[tuple[int, int]]
"""From and to, both included (µs); in the exchange's time for rows that can be requested again."""

COLUMNS = {
    "agg_trades": (
        "agg_trade_id", "price", "quantity", "first_trade_id", "last_trade_id", "is_buyer_maker",
    ),
    "trades": ("trade_id", "price", "quantity", "is_buyer_maker", "trade_type"),
    "book_tickers": ("update_id", "bid_price", "bid_quantity", "ask_price", "ask_quantity"),
}  # fmt: skip


class Judge:
    """Compares captured rows with an exchange's; the exchange's book tickers are generated once.

    Book tickers and single USD-M trades cannot be requested again. None of them may be wrong, and
    if some are missing, a gap covers the time between the neighbouring rows, or the exchange
    withheld them undetectably. Gaps of book tickers are in machine time, the time of receipt; those
    of trades in machine time or exchange time, which are distinguished.
    """

    def __init__(self, exchange: ExchangeThread) -> None:
        self._exchange = exchange
        self._quotes: dict[str, tuple[tuple[int, int], dict[int, Quote]]] = {}
        """By symbol, between the lowest id and the highest."""

    def differences(
        self,
        database_url: str,
        datasets: Iterable[str],
        symbols: Iterable[str],
        until_us: int,
        *,
        calm_us: int | None = None,
    ) -> list[str]:
        """Return what differs from the exchange before a time.

        From the first row of a listing on, each trade of the exchange is stored, unless an entry of
        ``ops.gaps`` covers it; no other trade is stored. Only the first dataset and symbol that
        differ are reported: the caller can ask again.

        Args:
            calm_us: time since which there are no faults; rows of every dataset must have come.
        """
        for dataset in datasets:
            for symbol in symbols:
                rows = _stored(database_url, dataset, symbol)
                if rows:
                    gaps = _gaps(database_url, dataset, symbol)
                    judge = (
                        self._check_book_tickers if dataset == "book_tickers" else self._of_trades
                    )
                    if found := judge(dataset, symbol, rows, gaps, until_us):
                        return found
                if calm_us is not None and (
                    found := self._check_newest(dataset, symbol, rows, calm_us, until_us)
                ):
                    return found
        return []

    def _check_newest(
        self, dataset: str, symbol: str, rows: list[Row], calm_us: int, until_us: int
    ) -> list[str]:
        """Return a difference if the exchange has had rows since the calm, and the table none."""
        if dataset == "book_tickers":
            has_new = has_book_tickers(self._exchange, symbol, calm_us, until_us)
            since_us = in_machine_time(self._exchange, calm_us)
        else:
            since_us = calm_us
            has_new = bool(trades_of(self._exchange, dataset, symbol, calm_us, until_us))
        if has_new and (not rows or rows[-1][0] < since_us):
            return [f"{dataset} of {symbol}: no row since {from_us(calm_us)}"]
        return []

    def _check_book_tickers(
        self, dataset: str, symbol: str, rows: list[Row], gaps: Gaps, until_us: int
    ) -> list[str]:
        where = f"{dataset} of {symbol}"
        until_us = in_machine_time(self._exchange, until_us)
        ours = {row[1]: row for row in rows if row[0] < until_us}
        if not ours:
            return []
        theirs = self._expected_book_tickers(symbol, min(ours), max(ours))
        found = [
            f"{where}: {number} is {row[2:]}, must be {theirs.get(number, ('', None))[1]}"
            for number, row in ours.items()
            if number not in theirs or theirs[number][1] != row[2:]
        ]
        kept_back = withheld(self._exchange, dataset, symbol)
        lacking = [
            number
            for number, (time_us, _) in theirs.items()
            if number not in ours and not _lies_in(time_us, kept_back)
        ]
        received = {number: row[0] for number, row in ours.items()}
        until = held_back_until(self._exchange, dataset, symbol)
        came = {key: in_machine_time(self._exchange, until(theirs[key][0])) for key in lacking}
        unexplained = _between(came, received, gaps)
        return found + [
            f"{told}; {_around(unexplained[0], received, gaps)}"
            for told in _missing_report(where, unexplained)
        ]

    def _expected_book_tickers(self, symbol: str, lowest: int, highest: int) -> dict[int, Quote]:
        """The exchange's book tickers between two ids; earlier ones are cached."""
        if symbol not in self._quotes:
            self._quotes[symbol] = (
                (lowest, highest),
                book_tickers_of(self._exchange, symbol, lowest, highest),
            )
        (low, high), made = self._quotes[symbol]
        if lowest < low:
            made = book_tickers_of(self._exchange, symbol, lowest, low - 1) | made
        if highest > high:
            made |= book_tickers_of(self._exchange, symbol, high + 1, highest)
        self._quotes[symbol] = (min(low, lowest), max(high, highest)), made
        return made

    def _of_trades(
        self, dataset: str, symbol: str, rows: list[Row], gaps: Gaps, until_us: int
    ) -> list[str]:
        where = f"{dataset} of {symbol}"
        ours = {(row[0], row[1]): tuple(row[2:]) for row in rows if row[0] < until_us}
        if not ours:
            return []  # its first row is younger
        theirs = trades_of(self._exchange, dataset, symbol, rows[0][0], until_us)
        found = []
        for key in sorted(ours):
            if key not in theirs:
                found.append(f"{where}: {key[1]} is none of the exchange's")
            elif ours[key] != theirs[key]:
                found.append(f"{where}: {key[1]} is {ours[key]}, must be {theirs[key]}")
        held = _held(listings_of(self._exchange, symbol), ours)
        missing = sorted(key for key in theirs if key not in ours and _lies_in(key, held))
        if not cannot_be_requested(dataset, market_of(symbol)):
            return found + _missing_report(
                where, [key[1] for key in missing if not _lies_in(key[0], gaps)]
            )
        kept_back = withheld(self._exchange, dataset, symbol)
        lacking = [key for key in missing if not _lies_in(key[0], kept_back)]
        gaps = [
            (in_exchange_time(self._exchange, start), in_exchange_time(self._exchange, end))
            for start, end in gaps
        ]
        until = held_back_until(self._exchange, dataset, symbol)
        came = {key: until(key[0]) for key in lacking}
        times = {key: key[0] for key in ours}
        unexplained = _between(came, times, gaps)
        return found + [
            f"{told}; {_around(unexplained[0], times, gaps)}"
            for told in _missing_report(where, [key[1] for key in unexplained])
        ]


def rows_captured(database_url: str) -> int:
    """Rows of raw capture in all."""
    with psycopg.connect(database_url) as connection:
        row = connection.execute(
            "SELECT (SELECT count(*) FROM market.agg_trades)"
            " + (SELECT count(*) FROM market.trades)"
            " + (SELECT count(*) FROM market.book_tickers)"
        ).fetchone()
    return 0 if row is None else int(row[0])


def _held(
    listings: Iterable[tuple[int, int]], ours: Iterable[tuple[int, int]]
) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """For each instrument with this name, the range to compare: from its first row on."""
    spans = []
    for start_us, next_us in listings:
        first = min((key for key in ours if start_us <= key[0] < next_us), default=None)
        if first is not None:
            spans.append((first, (next_us, -1)))
    return spans


def _missing_report(where: str, missing: Sequence[int]) -> list[str]:
    if not missing:
        return []
    return [f"{where}: {len(missing)} missing without a gap, from id {missing[0]} on"]


def _around(missing: Key, received: Mapping[Key, int], gaps: Gaps) -> str:
    """When its neighbours came, and the gaps nearest to them."""
    keys = sorted(received)
    at = bisect_left(keys, missing)
    before_us, after_us = (received[keys[n]] for n in (max(0, at - 1), min(at, len(keys) - 1)))
    nearest = sorted(gaps, key=lambda gap: max(gap[0] - after_us, before_us - gap[1]))[:2]
    told = " and ".join(f"{from_us(start)} to {from_us(end)}" for start, end in nearest)
    return f"between {from_us(before_us)} and {from_us(after_us)}, gaps nearest: {told or 'none'}"


def _lies_in(moment: Key, spans: Iterable[tuple[Key, Key]]) -> bool:
    return any(start <= moment <= end for start, end in spans)


def _between(lacking: Mapping[Key, int], ours: Mapping[Key, int], gaps: Gaps) -> list[Key]:
    """Return the missing rows without a gap between their neighbours.

    Args:
        lacking: latest arrival time of each missing row.
        ours: arrival time of each stored row.
    """
    keys = sorted(ours)
    found = []
    for key, came in lacking.items():
        at = bisect_left(keys, key)
        moments = [ours[one] for one in keys[max(0, at - 1) : at + 1]]
        latest = max(*moments, came)
        if not any(start <= latest and end >= min(moments) for start, end in gaps):
            found.append(key)
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
    """The exact stretches of gaps, which themselves are in full minutes."""
    with psycopg.connect(database_url) as connection:
        found = connection.execute(
            "SELECT stretch FROM ops.gaps, jsonb_object_keys(detail) AS stretch"
            " WHERE dataset = %s AND symbol = %s AND stretch LIKE '%%/%%'",
            (dataset, symbol),
        ).fetchall()
    spans = [stretch.split("/") for (stretch,) in found]
    return [
        (to_us(datetime.fromisoformat(start)), to_us(datetime.fromisoformat(end)))
        for start, end in spans
    ]
