"""Instruments: one row per listing in ``market.instruments``.

A ticker that was delisted and reused has two rows; no derived value crosses a listing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from psycopg.types.json import Jsonb

from include.domain.instruments import Instrument, Market
from include.domain.timeframes import from_us, to_us
from include.errors import PermanentError
from include.store.candles.merging import Connection
from include.store.postgres.pools import translated

LISTED_FROM_UNKNOWN_US = 0
"""Start of a listing whose start the exchange does not publish."""

MIN_SHARE_SEEN = 0.5
"""Minimum share of a market's known symbols in an answer. The exchange never delists half at a
time, so an answer with fewer is broken."""

# The exchange's start is later than the current listing's: the ticker was reused.
_END_REUSED = """
UPDATE market.instruments
SET listed_to = %(listed_at)s
WHERE
    symbol = %(symbol)s AND listed_to IS NULL
    AND listed_from < %(listed_at)s AND listed_from <> %(unknown)s
"""

# A delivered contract never trades again, though the exchange shows it for some time.
_END_DELIVERED = """
UPDATE market.instruments
SET listed_to = %(listed_to)s
WHERE symbol = %(symbol)s AND listed_to IS NULL AND listed_from < %(listed_to)s
"""

# Start of the row to write: the current listing's; that of a listing that seemed to have ended; or,
# for a ticker that came back, the exchange's start, else now.
_WRITE = """
WITH known AS (
    SELECT
        max(i.listed_from) FILTER (WHERE i.listed_to IS NULL) AS open_from,
        max(i.listed_from) AS last_from,
        max(i.listed_to) AS ended_at
    FROM market.instruments AS i
    WHERE i.symbol = %(symbol)s
)

INSERT INTO market.instruments AS i (
    symbol, listed_from, market, exchange_symbol, base_asset, quote_asset, status,
    tick_size, step_size, filters, quote_volume_is_exact, seen_at, listed_to,
    contract_type, contract_size, margin_asset, pair, delivers_at
)
SELECT
    %(symbol)s,
    CASE
        WHEN k.open_from IS NOT NULL THEN k.open_from
        WHEN %(listed_to)s::timestamptz IS NOT NULL AND %(listed_at)s::timestamptz IS NULL
            THEN coalesce(k.last_from, %(unknown)s)
        WHEN k.last_from = %(listed_at)s OR k.ended_at <= %(listed_at)s THEN %(listed_at)s
        WHEN k.ended_at IS NOT NULL THEN %(seen_at)s
        ELSE coalesce(%(listed_at)s, %(unknown)s)
    END,
    %(market)s, %(exchange_symbol)s, %(base_asset)s, %(quote_asset)s, %(status)s,
    %(tick_size)s, %(step_size)s, %(filters)s, %(is_exact)s, %(seen_at)s, %(listed_to)s,
    %(contract_type)s, %(contract_size)s, %(margin_asset)s, %(pair)s, %(delivers_at)s
FROM known AS k
ON CONFLICT (symbol, listed_from) DO UPDATE SET
    listed_to = excluded.listed_to,
    base_asset = excluded.base_asset,
    quote_asset = excluded.quote_asset,
    status = excluded.status,
    tick_size = excluded.tick_size,
    step_size = excluded.step_size,
    filters = CASE WHEN excluded.filters = '{}' THEN i.filters ELSE excluded.filters END,
    quote_volume_is_exact = excluded.quote_volume_is_exact,
    seen_at = excluded.seen_at,
    contract_type = excluded.contract_type,
    contract_size = excluded.contract_size,
    margin_asset = excluded.margin_asset,
    pair = excluded.pair,
    delivers_at = excluded.delivers_at
WHERE i.seen_at <= excluded.seen_at
"""

_COUNT_UNSEEN = """
SELECT count(*), count(*) FILTER (WHERE symbol <> ALL (%(symbols)s::text[]))
FROM market.instruments
WHERE market = %(market)s AND listed_to IS NULL AND listed_from < %(seen_at)s
"""

_END_UNSEEN = """
UPDATE market.instruments
SET listed_to = CASE
    WHEN delivers_at > listed_from AND delivers_at < %(seen_at)s THEN delivers_at
    ELSE %(seen_at)s
END
WHERE
    market = %(market)s AND listed_to IS NULL
    AND listed_from < %(seen_at)s AND seen_at < %(seen_at)s
    AND symbol <> ALL (%(symbols)s::text[])
"""

# Spot publishes no start of trading. But trades of one instrument have ascending ids: if all ids of
# a minute are smaller than those of the minute before, they belong to another instrument. Minutes
# without ids (from REST or a file) may lie between: it begins after their longest pause.
_FIND_REUSES = """
WITH published AS (
    SELECT
        c.symbol, c.open_time, c.last_trade_id,
        lag(c.first_trade_id) OVER w AS id_before, lag(c.open_time) OVER w AS minute_before
    FROM market.candles_1m AS c
    INNER JOIN market.instruments AS i ON c.symbol = i.symbol
    WHERE
        i.market = %(market)s AND i.listed_to IS NULL
        AND c.open_time >= %(since)s AND c.open_time < %(seen_at)s
        AND c.trade_count > 0 AND c.first_trade_id IS NOT NULL AND c.status <> 'partial'
    WINDOW w AS (PARTITION BY c.symbol ORDER BY c.open_time)
),

reused AS (
    SELECT
        symbol, minute_before, open_time,
        lead(minute_before, 1, %(seen_at)s)
            OVER (PARTITION BY symbol ORDER BY open_time) AS until
    FROM published
    WHERE last_trade_id < id_before
),

traded AS (
    SELECT
        r.symbol, r.minute_before, r.until, c.open_time,
        c.open_time
        - lag(c.open_time) OVER (PARTITION BY c.symbol, r.open_time ORDER BY c.open_time) AS pause
    FROM reused AS r
    INNER JOIN market.candles_1m AS c ON
        r.symbol = c.symbol AND c.open_time BETWEEN r.minute_before AND r.open_time
    WHERE c.trade_count > 0
)

SELECT DISTINCT ON (symbol, minute_before)
    symbol, minute_before, until, open_time AS begins
FROM traded
WHERE pause IS NOT NULL
ORDER BY symbol, minute_before, pause DESC, open_time DESC
"""

# The listing that was split here before, perhaps while minutes were missing.
_FIND_SPLIT = """
SELECT l.listed_from FROM market.instruments AS l
INNER JOIN market.instruments AS f ON l.symbol = f.symbol AND l.listed_from = f.listed_to
WHERE
    l.symbol = %(symbol)s
    AND l.listed_from > %(minute_before)s AND l.listed_from <= %(until)s
ORDER BY l.listed_from LIMIT 1
"""

_MOVE_SPLIT = """
UPDATE market.instruments SET
    listed_from = CASE listed_from WHEN %(split)s THEN %(begins)s ELSE listed_from END,
    listed_to = CASE listed_to WHEN %(split)s THEN %(begins)s ELSE listed_to END
WHERE symbol = %(symbol)s AND (listed_from = %(split)s OR listed_to = %(split)s)
"""

_SPLIT = """
WITH ended AS (
    UPDATE market.instruments
    SET listed_to = %(begins)s
    WHERE symbol = %(symbol)s AND listed_to IS NULL AND listed_from <= %(minute_before)s
    RETURNING *
)

INSERT INTO market.instruments (
    symbol, listed_from, market, exchange_symbol, base_asset, quote_asset, status,
    tick_size, step_size, filters, quote_volume_is_exact, seen_at,
    contract_type, contract_size, margin_asset, pair, delivers_at
)
SELECT
    symbol, %(begins)s, market, exchange_symbol, base_asset, quote_asset, status,
    tick_size, step_size, filters, quote_volume_is_exact, seen_at,
    contract_type, contract_size, margin_asset, pair, delivers_at
FROM ended
"""

_READ = """
SELECT
    symbol, market, base_asset, quote_asset, status, tick_size, step_size, listed_from, listed_to,
    contract_type, contract_size, margin_asset, pair, delivers_at, settlement_price
FROM market.instruments
WHERE
    (%(market)s::text IS NULL OR market = %(market)s)
    AND (%(symbols)s::text[] IS NULL OR symbol = ANY (%(symbols)s::text[]))
    AND (%(with_ended)s OR listed_to IS NULL)
ORDER BY symbol, listed_from
"""

_PAIRS_TO_SETTLE = r"""
SELECT DISTINCT pair FROM market.instruments
WHERE
    market = %s AND pair IS NOT NULL AND settlement_price IS NULL
    AND delivers_at < %s AND exchange_symbol ~ '_\d{6}$'
ORDER BY pair
"""

_SETTLE = """
UPDATE market.instruments SET settlement_price = %(price)s
WHERE
    market = %(market)s AND pair = %(pair)s AND delivers_at = %(delivered_at)s
    AND settlement_price IS NULL
"""


@dataclass(frozen=True, slots=True)
class Reuses:
    """Symbols of reused tickers: split into two listings now, or split before at another minute."""

    split: list[str]
    moved: list[str]


@dataclass(frozen=True, slots=True)
class Listing:
    """An instrument from ``listed_from_us`` to ``listed_to_us`` (None: still listed).

    ``listed_from_us`` is ``LISTED_FROM_UNKNOWN_US`` if the exchange does not publish it.
    ``settlement_price`` is known once a dated contract was delivered.
    """

    instrument: Instrument
    listed_from_us: int
    listed_to_us: int | None
    settlement_price: Decimal | None = None


def write_instruments(
    connection: Connection,
    instruments: Sequence[Instrument],
    seen_at_us: int,
    *,
    whole_market: Market | None = None,
    refused: Iterable[str] = (),
) -> int:
    """Write the exchange's list of instruments; a list older than the stored one changes nothing.

    Args:
        seen_at_us: the server's time of the answer.
        whole_market: the answer contains all instruments of this market, so listings missing from
            it have ended.
        refused: symbols of the answer that could not be used; their rows stay as they are.

    Returns:
        Number of listings that ended.

    Raises:
        PermanentError: ``whole_market`` is given, and the answer lacks most symbols.
    """
    with translated(connection), connection.transaction(), connection.cursor() as cursor:
        rows = [
            _arguments(instrument, seen_at_us)
            for instrument in sorted(instruments, key=lambda each: each.symbol)
        ]
        dated = [row for row in rows if row["listed_at"] is not None]
        ended = 0
        if dated:
            cursor.executemany(_END_REUSED, dated)
            ended += cursor.rowcount
        if delivered := [row for row in rows if row["listed_to"] is not None]:
            cursor.executemany(_END_DELIVERED, delivered)
            ended += cursor.rowcount
        if rows:
            cursor.executemany(_WRITE, rows)
        if whole_market is not None:
            shown = {
                "market": whole_market.value,
                "symbols": [
                    *(row["symbol"] for row in rows if row["market"] == whole_market.value),
                    *refused,
                ],
                "seen_at": from_us(seen_at_us),
            }
            known, unseen = cursor.execute(_COUNT_UNSEEN, shown).fetchone() or (0, 0)
            if known - unseen < MIN_SHARE_SEEN * known:
                raise PermanentError(
                    f"the answer shows {known - unseen} of {known} listed symbols of "
                    f"{whole_market}: not the whole market; nothing was written"
                )
            cursor.execute(_END_UNSEEN, shown)
            ended += cursor.rowcount
    return ended


def part_reused(
    connection: Connection, market: Market, *, since_us: int, seen_at_us: int
) -> Reuses:
    """Split the listings of tickers that passed to another instrument without a delisting.

    Their trade ids restart. This shows only in minutes with ids, such as streamed ones. The former
    listing ends, and the new one begins, with the first minute of smaller ids. If minutes without
    ids precede it, the new listing begins after the longest pause between them. A split moves if
    such minutes are stored later.

    Args:
        since_us, seen_at_us: range of minutes to check.
    """
    arguments = {
        "market": market.value,
        "since": from_us(since_us),
        "seen_at": from_us(seen_at_us),
    }
    split_now: set[str] = set()
    moved: set[str] = set()
    with translated(connection), connection.transaction(), connection.cursor() as cursor:
        names = ("symbol", "minute_before", "until", "begins")
        for row in cursor.execute(_FIND_REUSES, arguments).fetchall():
            reuse = dict(zip(names, row, strict=True))
            split = cursor.execute(_FIND_SPLIT, reuse).fetchone()
            if split is None:
                cursor.execute(_SPLIT, reuse)
                if cursor.rowcount:
                    split_now.add(reuse["symbol"])
            elif split[0] != reuse["begins"]:
                cursor.execute(_MOVE_SPLIT, {**reuse, "split": split[0]})
                moved.add(reuse["symbol"])
    return Reuses(sorted(split_now), sorted(moved))


def read_instruments(
    connection: Connection,
    *,
    market: Market | None = None,
    symbols: Iterable[str] | None = None,
) -> list[Instrument]:
    """Return the instruments listed now, by symbol: all, of one market, or by name."""
    listings = _read(connection, market=market, symbols=symbols, with_ended=False)
    return [listing.instrument for listing in listings]


def read_listings(
    connection: Connection,
    *,
    market: Market | None = None,
    symbols: Iterable[str] | None = None,
) -> list[Listing]:
    """Return all listings, including ended ones, by symbol and start."""
    return _read(connection, market=market, symbols=symbols, with_ended=True)


def pairs_to_settle(connection: Connection, market: Market, now_us: int) -> list[str]:
    """Return the pairs of a market with delivered contracts whose settlement price is unknown."""
    with translated(connection):
        rows = connection.execute(_PAIRS_TO_SETTLE, (market.value, from_us(now_us))).fetchall()
    return [pair for (pair,) in rows]


def write_settlement_prices(
    connection: Connection, market: Market, pair: str, prices: Mapping[int, Decimal]
) -> int:
    """Write the settlement prices of a pair's contracts; known ones stay.

    Args:
        prices: by time of delivery (µs).

    Returns:
        Number of contracts that got one.
    """
    rows = [
        {
            "market": market.value,
            "pair": pair,
            "delivered_at": from_us(delivered_us),
            "price": price,
        }
        for delivered_us, price in sorted(prices.items())
    ]
    if not rows:
        return 0
    with translated(connection), connection.transaction(), connection.cursor() as cursor:
        cursor.executemany(_SETTLE, rows)
        return cursor.rowcount


def symbols_not_trading(connection: Connection) -> list[str]:
    """Return the symbols without a listing that trades now, such as delisted and halted ones."""
    with translated(connection):
        rows = connection.execute(
            "SELECT symbol FROM market.instruments GROUP BY symbol "
            "HAVING NOT bool_or(listed_to IS NULL AND status = 'TRADING') ORDER BY symbol"
        ).fetchall()
    return [symbol for (symbol,) in rows]


def _read(
    connection: Connection,
    *,
    market: Market | None,
    symbols: Iterable[str] | None,
    with_ended: bool,
) -> list[Listing]:
    arguments = {
        "market": None if market is None else market.value,
        "symbols": None if symbols is None else list(symbols),
        "with_ended": with_ended,
    }
    with translated(connection):
        return [_listing(row) for row in connection.execute(_READ, arguments).fetchall()]


def _arguments(instrument: Instrument, seen_at_us: int) -> dict[str, Any]:
    listed_at_us = instrument.listed_at_us
    delivers_at_us = instrument.delivers_at_us
    delivers_at = None if delivers_at_us is None else from_us(delivers_at_us)
    return {
        "symbol": instrument.symbol,
        "market": instrument.market.value,
        "exchange_symbol": instrument.exchange_symbol,
        "base_asset": instrument.base_asset,
        "quote_asset": instrument.quote_asset,
        "status": instrument.status,
        "tick_size": instrument.tick_size,
        "step_size": instrument.step_size,
        "is_exact": instrument.quote_volume_is_exact,
        "filters": Jsonb({kind: dict(terms) for kind, terms in instrument.filters.items()}),
        "listed_at": None if listed_at_us is None else from_us(listed_at_us),
        "seen_at": from_us(seen_at_us),
        "unknown": from_us(LISTED_FROM_UNKNOWN_US),
        "listed_to": delivers_at if instrument.is_delivered(seen_at_us) else None,
        "contract_type": instrument.contract_type,
        "contract_size": instrument.contract_size,
        "margin_asset": instrument.margin_asset,
        "pair": instrument.pair,
        "delivers_at": delivers_at,
    }


def _listing(row: tuple[Any, ...]) -> Listing:
    symbol, market, base_asset, quote_asset, status, tick_size, step_size, start, end = row[:9]
    contract_type, contract_size, margin_asset, pair, delivers_at, settlement_price = row[9:]
    from_time_us = to_us(start)
    instrument = Instrument(
        symbol=symbol,
        market=Market(market),
        base_asset=base_asset,
        quote_asset=quote_asset,
        status=status,
        tick_size=tick_size,
        step_size=step_size,
        listed_at_us=None if from_time_us == LISTED_FROM_UNKNOWN_US else from_time_us,
        contract_type=contract_type,
        contract_size=contract_size,
        margin_asset=margin_asset,
        pair=pair,
        delivers_at_us=None if delivers_at is None else to_us(delivers_at),
    )
    end_us = None if end is None else to_us(end)
    return Listing(instrument, from_time_us, end_us, settlement_price)
