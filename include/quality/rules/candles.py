"""Rules about the values of one candle: none reads another row.

Each assumes the rules above it: a row that breaks one is excluded from the others, so that a fault
is reported once.
"""

from __future__ import annotations

from psycopg import sql

from include.domain.candles import (
    EXCHANGE_SOURCES,
    PARTIAL_RANK,
    SOURCE_RANK,
    VALUE_NAMES,
    Source,
    Status,
)
from include.quality.check import Check, Severity

NUMBERS = tuple(name for name in VALUE_NAMES if name != "trade_count")
"""Columns of type numeric, whose values could be NaN or infinite."""

REQUIRED = ("symbol", "open_time", *VALUE_NAMES, "status", "source", "source_rank")
"""Columns of ``market.candles_1m`` that are never null."""

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

# Where tick x step has more than eight decimals the exchange rounds the amount of each fill, to
# eight: a fill may be off by less than the last of them.
QUOTE_VOLUME_FITS_THE_PRICES = Check(
    "quote_volume_fits_the_prices",
    "quote volume lies within low x volume and high x volume, likewise for takers",
    """
    SELECT
        symbol,
        open_time,
        'quote volume ' || quote_volume || ' for ' || volume || ', takers '
        || taker_buy_quote_volume || ' for ' || taker_buy_volume || ', prices from ' || low
        || ' to ' || high AS detail
    FROM (
        SELECT *, trade_count * 0.00000001 AS rounded
        FROM {{batch}}
        WHERE
            trade_count > 0 AND volume > 0 AND low > 0
            AND high >= greatest(open, close, low) AND low <= least(open, close)
            AND taker_buy_volume BETWEEN 0 AND volume
            AND taker_buy_quote_volume BETWEEN 0 AND quote_volume
            AND quote_volume < 'Infinity'
    ) AS traded
    WHERE
        quote_volume NOT BETWEEN low * volume - rounded AND high * volume + rounded
        OR taker_buy_quote_volume NOT BETWEEN
        low * taker_buy_volume - rounded AND high * taker_buy_volume + rounded
    """,
)

STATUS_AND_SOURCE_ARE_KNOWN = Check(
    "status_and_source_are_known",
    "status and source are known values, and only the exchange's own are verified",
    """
    SELECT symbol, open_time, 'status ' || status || ', source ' || source AS detail
    FROM {{batch}}
    WHERE
        status NOT IN ({statuses})
        OR source NOT IN ({sources})
        OR (status = 'verified') <> (source IN ({exchange_sources}))
    """,
)

RANK_AND_EVIDENCE_FIT_THE_SOURCE = Check(
    "rank_and_evidence_fit_the_source",
    "the rank is that of source and status, and the exchange's own rows have evidence",
    """
    SELECT
        symbol,
        open_time,
        'source ' || source || ', status ' || status || ', rank ' || source_rank || ', evidence of '
        || coalesce(evidence_at::text, 'no time') AS detail
    FROM {{batch}}
    WHERE
        (status = 'verified') = (source IN ({exchange_sources}))
        AND (
            source_rank <> CASE WHEN status = 'partial' THEN {partial_rank} ELSE
                CASE source {ranks} END
            END
            OR status = 'verified' AND evidence_at IS NULL
        )
    """,
)

# Raw ids of USD-M skip by design; there a candle has at most as many trades as ids.
TRADE_COUNT_FITS_THE_IDS = Check(
    "trade_count_fits_the_ids",
    "first and last trade id span as many trades as are counted; on USD-M at least as many",
    """
    SELECT
        symbol,
        open_time,
        trade_count || ' trades, ids ' || first_trade_id || ' to ' || last_trade_id AS detail
    FROM {{batch}}
    WHERE
        trade_count > 0
        AND (
            last_trade_id - first_trade_id + 1 < trade_count
            OR market.market_of(symbol) = 'spot'
            AND last_trade_id - first_trade_id + 1 > trade_count
        )
    """,
)

# Days that were reconciled completely have a rule of their own: reconciled_days_stay_verified.
STREAMED_MINUTES_ARE_CONFIRMED = Check(
    "streamed_minutes_are_confirmed",
    "no streamed minute is unconfirmed or partial for longer than QUALITY_UNVERIFIED_AFTER_MINUTES",
    """
    SELECT symbol, open_time, status || ' for ' || {end} - open_time AS detail
    FROM (SELECT * FROM {{batch}}) AS candle
    WHERE
        source = 'stream' AND status IN ('unconfirmed', 'partial')
        AND open_time < {end} - {unverified_after}
        AND NOT EXISTS (
            SELECT FROM ops.reconciliations AS judged
            WHERE
                judged.symbol = candle.symbol
                AND judged.day = (candle.open_time AT TIME ZONE 'UTC')::date
                AND judged.is_complete
                AND candle.updated_at < judged.reconciled_at
        )
    """,
)

# REST may lack a minute that a file contains later: a warning, not an alarm.
ROWS_LIE_OUTSIDE_OUTAGES = Check(
    "rows_lie_outside_outages",
    "no minute has both trades and an entry in ops.outages",
    """
    SELECT symbol, open_time, trade_count || ' trades during "' || cause || '"' AS detail
    FROM (SELECT * FROM {{batch}}) AS candle, LATERAL (
        SELECT outages.cause FROM ops.outages
        WHERE
            outages.market = market.market_of(candle.symbol)
            AND (outages.symbol = candle.symbol OR outages.symbol IS NULL)
            AND outages.minutes @> candle.open_time
        ORDER BY outages.id LIMIT 1
    ) AS halted
    WHERE trade_count > 0
    """,
    Severity.WARNING,
)

# Ids of spot are contiguous: with as many trades kept as the candle's ids span, all of them are.
VOLUME_EQUALS_ITS_TRADES = Check(
    "volume_equals_its_trades",
    "if every trade of a spot minute is stored, they add up to its volumes and span its prices",
    """
    SELECT
        symbol,
        open_time,
        'volume ' || volume || ', trades sum to ' || bought + sold || '; takers '
        || taker_buy_volume || ' and ' || bought || '; prices from ' || low || ' to ' || high
        || ' and from ' || least_price || ' to ' || greatest_price AS detail
    FROM (SELECT * FROM {{batch}}) AS candle, LATERAL (
        SELECT
            count(*) AS kept,
            coalesce(sum(quantity) FILTER (WHERE NOT is_buyer_maker), 0) AS bought,
            coalesce(sum(quantity) FILTER (WHERE is_buyer_maker), 0) AS sold,
            min(price) AS least_price,
            max(price) AS greatest_price,
            min(quantity) AS least_quantity
        FROM market.trades
        WHERE
            trades.symbol = candle.symbol
            AND trades.day = (candle.open_time AT TIME ZONE 'UTC')::date
            AND trades.trade_id BETWEEN candle.first_trade_id AND candle.last_trade_id
    ) AS sums
    WHERE
        market.market_of(symbol) = 'spot'
        AND trade_count = last_trade_id - first_trade_id + 1
        AND kept = trade_count AND least_price > 0 AND least_quantity > 0
        AND high >= greatest(open, close, low) AND low <= least(open, close)
        AND taker_buy_volume BETWEEN 0 AND volume
        AND (volume, taker_buy_volume, low, high)
        <> (bought + sold, bought, least_price, greatest_price)
    """,
)

CANDLE_CHECKS = (
    VALUES_ARE_PRESENT,
    OPEN_TIME_IS_ON_THE_MINUTE,
    MINUTES_ARE_UNIQUE,
    PRICES_ARE_POSITIVE,
    HIGH_AND_LOW_BOUND_THE_PRICES,
    TAKERS_BUY_PART_OF_THE_VOLUME,
    SILENT_MINUTES_HAVE_ZEROS,
    QUOTE_VOLUME_FITS_THE_PRICES,
    STATUS_AND_SOURCE_ARE_KNOWN,
    RANK_AND_EVIDENCE_FIT_THE_SOURCE,
    TRADE_COUNT_FITS_THE_IDS,
    STREAMED_MINUTES_ARE_CONFIRMED,
    ROWS_LIE_OUTSIDE_OUTAGES,
    VOLUME_EQUALS_ITS_TRADES,
)

VOCABULARY = {
    "statuses": sql.SQL(", ").join(sql.Literal(status.value) for status in Status),
    "sources": sql.SQL(", ").join(sql.Literal(source.value) for source in Source),
    "exchange_sources": sql.SQL(", ").join(
        sql.Literal(source.value) for source in sorted(EXCHANGE_SOURCES)
    ),
    "live_sources": sql.SQL(", ").join(
        sql.Literal(source.value) for source in (Source.STREAM, Source.KLINE)
    ),
    "partial_rank": sql.Literal(PARTIAL_RANK),
    "ranks": sql.SQL(" ").join(
        sql.SQL("WHEN {} THEN {}").format(sql.Literal(source.value), sql.Literal(rank))
        for source, rank in SOURCE_RANK.items()
    ),
    "required": sql.SQL(", ").join(map(sql.Identifier, REQUIRED)),
    "numbers": sql.SQL("ARRAY[{}]").format(sql.SQL(", ").join(map(sql.Identifier, NUMBERS))),
    "values": sql.SQL(", ").join(
        sql.SQL("({}, {}::text)").format(sql.Literal(name), sql.Identifier(name))
        for name in REQUIRED
    ),
}
"""Parts of queries that the domain decides."""
