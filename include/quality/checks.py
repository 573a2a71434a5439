"""The rules that ``market.candles_1m`` keeps, each a query for the rows that break it.

A query reads the window's rows from ``{batch}`` and returns (symbol, open_time, detail). The
braces of ``{start}``, ``{end}`` and other values are filled by ``psycopg.sql``; those of the
batch are doubled here, since Great Expectations fills them later. No query contains the word for
combining two tables: seeing it, Great Expectations would drop the alias of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import LiteralString

from psycopg import sql

from include.domain.candles import EXCHANGE_SOURCES, VALUE_NAMES, Source, Status

NUMBERS = tuple(name for name in VALUE_NAMES if name != "trade_count")
"""Columns of type numeric, whose values could be NaN or infinite."""

REQUIRED = ("symbol", "open_time", *VALUE_NAMES, "status", "source", "source_rank")
"""Columns of ``market.candles_1m`` that are never null."""


@dataclass(frozen=True, slots=True)
class Check:
    """One rule.

    Attributes:
        name: identifies it in ``ops.quality_results``.
        rule: what is true of every row, in words.
        query: rows that break it; see the module's docstring.
    """

    name: str
    rule: str
    query: LiteralString


VALUES_ARE_PRESENT = Check(
    "values_are_present",
    "key, values and provenance are never null, values are finite numbers",
    """
    SELECT symbol, open_time, v.name || ' is ' || coalesce(v.value, 'null') AS detail
    FROM {{batch}}, LATERAL (VALUES {values}) AS v (name, value)
    WHERE
        -- cheap, and seldom true: only then is a row taken apart
        (num_nulls({required}) > 0 OR {numbers} && ARRAY['NaN', 'Infinity', '-Infinity']::numeric[])
        AND (v.value IS NULL OR v.value IN ('NaN', 'Infinity', '-Infinity'))
    """,
)

OPEN_TIME_IS_ON_THE_MINUTE = Check(
    "open_time_is_on_the_minute",
    "a row opens at the start of a minute",
    """
    SELECT symbol, open_time, 'opens at second ' || extract(second FROM open_time) AS detail
    FROM {{batch}}
    WHERE extract(second FROM open_time) <> 0
    """,
)

MINUTES_ARE_UNIQUE = Check(
    "minutes_are_unique",
    "a symbol has one row for a minute",
    """
    SELECT symbol, open_time, count(*) || ' rows' AS detail
    FROM {{batch}}
    GROUP BY symbol, open_time
    HAVING count(*) > 1
    """,
)

PRICES_ARE_POSITIVE = Check(
    "prices_are_positive",
    "open, high, low and close are above zero",
    """
    SELECT symbol, open_time, 'lowest price is ' || least(open, high, low, close) AS detail
    FROM {{batch}}
    WHERE least(open, high, low, close) <= 0
    """,
)

HIGH_AND_LOW_BOUND_THE_PRICES = Check(
    "high_and_low_bound_the_prices",
    "low <= open, close <= high",
    """
    SELECT
        symbol,
        open_time,
        'open ' || open || ', high ' || high || ', low ' || low || ', close ' || close AS detail
    FROM {{batch}}
    WHERE high < greatest(open, close, low) OR low > least(open, close)
    """,
)

TAKERS_BUY_PART_OF_THE_VOLUME = Check(
    "takers_buy_part_of_the_volume",
    "0 <= taker_buy_volume <= volume, the same in quote asset",
    """
    SELECT
        symbol,
        open_time,
        'takers bought ' || taker_buy_volume || ' of ' || volume || ', in quote asset '
        || taker_buy_quote_volume || ' of ' || quote_volume AS detail
    FROM {{batch}}
    WHERE
        taker_buy_volume < 0 OR taker_buy_volume > volume
        OR taker_buy_quote_volume < 0 OR taker_buy_quote_volume > quote_volume
    """,
)

SILENT_MINUTES_HAVE_ZEROS = Check(
    "silent_minutes_have_zeros",
    "no trades, no volume and one price go together",
    """
    SELECT
        symbol,
        open_time,
        trade_count || ' trades, volume ' || volume || ', quote volume ' || quote_volume
        || ', prices from ' || low || ' to ' || high AS detail
    FROM {{batch}}
    WHERE
        trade_count < 0
        OR (trade_count = 0) <> (volume = 0)
        OR trade_count = 0 AND (quote_volume <> 0 OR high > low)
    """,
)

STATUS_AND_SOURCE_ARE_KNOWN = Check(
    "status_and_source_are_known",
    "status and source are words of the vocabulary, and only the exchange's own are verified",
    """
    SELECT symbol, open_time, 'status ' || status || ', source ' || source AS detail
    FROM {{batch}}
    WHERE
        status NOT IN ({statuses})
        OR source NOT IN ({sources})
        OR (status = 'verified') <> (source IN ({exchange_sources}))
    """,
)

# Two ends of a hole: the row before it may lie before the window. The minute is cut to full
# minutes so that a row a second late counts as late, not as missing too. A hole is as old as the
# row after it: after a reconnect the streamer repairs it, however long the cut was.
NO_MINUTE_IS_MISSING = Check(
    "no_minute_is_missing",
    "between a symbol's rows every minute has one, outages and the last ten minutes aside",
    """
    WITH minutes AS (
        SELECT DISTINCT symbol, date_trunc('minute', open_time) AS minute FROM {{batch}}
    ),

    neighbours AS (
        SELECT
            symbol,
            minute,
            coalesce(
                lag(minute) OVER (PARTITION BY symbol ORDER BY minute),
                (
                    SELECT {start} - interval '1 minute'
                    WHERE EXISTS (
                        SELECT FROM market.candles_1m AS earlier
                        WHERE earlier.symbol = minutes.symbol AND earlier.open_time < {start}
                    )
                )
            ) AS previous
        FROM minutes
    ),

    holes AS (
        SELECT
            symbol,
            tstzmultirange(tstzrange(previous + interval '1 minute', minute)) - coalesce(
                (
                    SELECT range_agg(outages.minutes) FROM ops.outages
                    WHERE
                        outages.market = market.market_of(neighbours.symbol)
                        AND (outages.symbol = neighbours.symbol OR outages.symbol IS NULL)
                ),
                '{{{{}}}}'
            ) AS missing
        FROM neighbours
        WHERE minute > previous + interval '1 minute' AND minute <= {end} - {settled_after}
    )

    SELECT
        symbol,
        lower(hole) AS open_time,
        extract(epoch FROM upper(hole) - lower(hole))::bigint / 60 || ' minutes missing' AS detail
    FROM holes, LATERAL unnest(missing) AS hole
    """,
)

# Raw ids of USD-M skip by design. Two minutes are compared only if every minute between them is
# there and silent: else the jump has a cause that another rule names.
TRADE_IDS_ARE_CONTINUOUS = Check(
    "trade_ids_are_continuous",
    "on spot a minute's first trade id follows the last of the minute before",
    """
    WITH minutes AS (
        SELECT
            *,
            date_trunc('minute', open_time) AS minute,
            count(*) FILTER (WHERE trade_count = 0) OVER in_order AS silent_before
        FROM {{batch}}
        WINDOW in_order AS (PARTITION BY symbol ORDER BY open_time)
    ),

    traded AS (
        SELECT
            *,
            lag(minute) OVER in_order AS previous_minute,
            lag(last_trade_id) OVER in_order AS previous_id,
            lag(silent_before) OVER in_order AS previous_silent
        FROM minutes
        WHERE trade_count > 0
        WINDOW in_order AS (PARTITION BY symbol ORDER BY open_time)
    )

    SELECT
        symbol,
        open_time,
        'ids ' || first_trade_id || ' to ' || last_trade_id || ' after '
        || coalesce(previous_id::text, 'none') AS detail
    FROM traded
    WHERE
        market.market_of(symbol) = 'spot'
        AND (
            last_trade_id < first_trade_id
            OR previous_id + 1 <> first_trade_id
            AND minute - previous_minute
            = (silent_before - previous_silent + 1) * interval '1 minute'
        )
    """,
)

# Of symbols that were streamed lately: history that was only loaded may end anywhere, and a symbol
# that the exchange has stopped trading has no later rows.
SYMBOLS_ARE_NOT_STALE = Check(
    "symbols_are_not_stale",
    "a trading symbol that is streamed has rows up to the window's end",
    """
    WITH present AS (
        SELECT symbol, max(open_time) AS open_time FROM {{batch}} GROUP BY symbol
    ),

    latest AS (
        SELECT
            wanted.symbol,
            coalesce(
                (SELECT open_time FROM present WHERE present.symbol = wanted.symbol),
                (
                    SELECT open_time FROM market.candles_1m AS earlier
                    WHERE
                        earlier.symbol = wanted.symbol
                        AND open_time >= {start} - {lookback}
                        AND open_time < {start}
                    ORDER BY open_time DESC
                    LIMIT 1
                )
            ) AS open_time
        FROM unnest({symbols}::text[]) AS wanted (symbol)
    )

    SELECT symbol, open_time, 'its last row, ' || {end} - open_time || ' before the end' AS detail
    FROM latest
    WHERE
        open_time < {end} - {stale_after}
        AND EXISTS (
            SELECT FROM market.candles_1m AS streamed
            WHERE
                streamed.symbol = latest.symbol
                AND streamed.open_time >= {start} - {lookback}
                AND streamed.open_time < {end}
                AND streamed.source IN ({live_sources})
        )
        AND NOT EXISTS (
            SELECT FROM market.instruments AS listed
            WHERE
                listed.symbol = latest.symbol
                AND (listed.listed_to IS NOT NULL OR listed.status <> 'TRADING')
                AND NOT EXISTS (
                    SELECT FROM market.instruments AS other
                    WHERE
                        other.symbol = listed.symbol
                        AND other.listed_to IS NULL
                        AND other.status = 'TRADING'
                )
        )
        AND NOT tstzrange(open_time + interval '1 minute', {end}) <@ coalesce(
            (
                SELECT range_agg(outages.minutes) FROM ops.outages
                WHERE
                    outages.market = market.market_of(latest.symbol)
                    AND (outages.symbol = latest.symbol OR outages.symbol IS NULL)
            ),
            '{{{{}}}}'
        )
    """,
)

CHECKS = (
    VALUES_ARE_PRESENT,
    OPEN_TIME_IS_ON_THE_MINUTE,
    MINUTES_ARE_UNIQUE,
    PRICES_ARE_POSITIVE,
    HIGH_AND_LOW_BOUND_THE_PRICES,
    TAKERS_BUY_PART_OF_THE_VOLUME,
    SILENT_MINUTES_HAVE_ZEROS,
    STATUS_AND_SOURCE_ARE_KNOWN,
    NO_MINUTE_IS_MISSING,
    TRADE_IDS_ARE_CONTINUOUS,
    SYMBOLS_ARE_NOT_STALE,
)
"""Every rule, in the order of the report."""

VOCABULARY = {
    "statuses": sql.SQL(", ").join(sql.Literal(status.value) for status in Status),
    "sources": sql.SQL(", ").join(sql.Literal(source.value) for source in Source),
    "exchange_sources": sql.SQL(", ").join(
        sql.Literal(source.value) for source in sorted(EXCHANGE_SOURCES)
    ),
    "live_sources": sql.SQL(", ").join(
        sql.Literal(source.value) for source in (Source.STREAM, Source.KLINE)
    ),
    "required": sql.SQL(", ").join(map(sql.Identifier, REQUIRED)),
    "numbers": sql.SQL("ARRAY[{}]").format(sql.SQL(", ").join(map(sql.Identifier, NUMBERS))),
    "values": sql.SQL(", ").join(
        sql.SQL("({}, {}::text)").format(sql.Literal(name), sql.Identifier(name))
        for name in REQUIRED
    ),
}
"""Parts of queries that the domain decides."""
