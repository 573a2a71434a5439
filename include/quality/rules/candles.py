"""Rules about the values of a single candle.

The constraints of ``market.candles_1m`` guard keys, full minutes, finite numbers, bounds of prices
and volumes, and the valid combinations of source, status, rank and evidence. These rules check the
rest. A row that fails one rule is excluded from the rules below it, so that a fault is reported
once.
"""

from __future__ import annotations

from psycopg import sql

from include.domain.candles import (
    EXCHANGE_SOURCES,
    PARTIAL_RANK,
    SOURCE_RANK,
    Source,
)
from include.quality.check import Check, Severity

# The constraint allows 0, so that no merge fails because of one odd row of the exchange.
PRICES_ARE_POSITIVE = Check(
    "prices_are_positive",
    "no price is zero",
    """
    SELECT symbol, open_time, 'lowest price is ' || low AS detail
    FROM {{batch}}
    WHERE low <= 0
    """,
)

SILENT_MINUTES_HAVE_ONE_PRICE = Check(
    "silent_minutes_have_one_price",
    "the prices of a minute without trades are equal",
    """
    SELECT symbol, open_time, 'no trades, prices from ' || low || ' to ' || high AS detail
    FROM {{batch}}
    WHERE trade_count = 0 AND high > low
    """,
)

# On COIN-M, volume counts contracts and quote volume the base asset. The market's contract size may
# be unknown. If tick x step has more than eight decimals, the exchange rounds the amount of each
# fill to eight: a fill may be off by less than the last decimal.
QUOTE_VOLUME_FITS_THE_PRICES = Check(
    "quote_volume_fits_the_prices",
    "quote volume lies within low x volume and high x volume, on COIN-M within contract size x "
    "volume / high and / low, likewise for takers",
    """
    SELECT
        symbol,
        open_time,
        'quote volume ' || quote_volume || ' for ' || volume || ', takers '
        || taker_buy_quote_volume || ' for ' || taker_buy_volume || ', prices from ' || low
        || ' to ' || high AS detail
    FROM (
        SELECT
            *,
            trade_count * 0.00000001 AS rounded,
            market.market_of(symbol) = 'cm' AS is_inverse,
            CASE
                WHEN market.market_of(symbol) = 'cm' THEN market.contract_size_of(symbol)
            END AS size
        FROM {{batch}}
        WHERE trade_count > 0 AND low > 0
    ) AS traded
    WHERE
        CASE
            WHEN is_inverse THEN
                quote_volume NOT BETWEEN
                size * volume / high - rounded AND size * volume / low + rounded
                OR taker_buy_quote_volume NOT BETWEEN
                size * taker_buy_volume / high - rounded AND size * taker_buy_volume / low + rounded
            ELSE
                quote_volume NOT BETWEEN low * volume - rounded AND high * volume + rounded
                OR taker_buy_quote_volume NOT BETWEEN
                low * taker_buy_volume - rounded AND high * taker_buy_volume + rounded
        END
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

# Completely reconciled days have a separate rule: reconciled_days_stay_verified.
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

# Spot ids are contiguous: if as many trades are stored as the candle's ids span, all are stored.
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
            count(*) AS stored,
            coalesce(sum(quantity) FILTER (WHERE NOT is_buyer_maker), 0) AS bought,
            coalesce(sum(quantity) FILTER (WHERE is_buyer_maker), 0) AS sold,
            min(price) AS least_price,
            max(price) AS greatest_price
        FROM market.trades
        WHERE
            trades.symbol = candle.symbol
            AND trades.day = (candle.open_time AT TIME ZONE 'UTC')::date
            AND trades.trade_id BETWEEN candle.first_trade_id AND candle.last_trade_id
    ) AS sums
    WHERE
        market.market_of(symbol) = 'spot'
        AND trade_count = last_trade_id - first_trade_id + 1
        AND stored = trade_count
        AND (volume, taker_buy_volume, low, high)
        <> (bought + sold, bought, least_price, greatest_price)
    """,
)

# The exchange's published start of trading may be later than its first rows: only the end counts.
ROWS_LIE_WITHIN_A_LISTING = Check(
    "rows_lie_within_a_listing",
    "a symbol has no trades after its last listing has ended, nor between two listings",
    """
    SELECT symbol, open_time, trade_count || ' trades after the listing ended ' || ended AS detail
    FROM (SELECT * FROM {{batch}}) AS candle, LATERAL (
        SELECT max(listed.listed_to) AS ended FROM market.instruments AS listed
        WHERE listed.symbol = candle.symbol AND listed.listed_to <= candle.open_time
    ) AS earlier
    WHERE
        trade_count > 0
        AND ended IS NOT NULL
        AND NOT EXISTS (
            SELECT FROM market.instruments AS listed
            WHERE
                listed.symbol = candle.symbol
                AND listed.listed_from <= candle.open_time
                AND (listed.listed_to IS NULL OR listed.listed_to > candle.open_time)
        )
    """,
)

# Dump files have symbols that were delisted before the registry began.
SYMBOLS_ARE_REGISTERED = Check(
    "symbols_are_registered",
    "the symbol of a candle is in market.instruments, once its market was registered",
    """
    SELECT symbol, min(open_time) AS open_time, 'not in market.instruments' AS detail
    FROM (SELECT * FROM {{batch}}) AS candle
    WHERE
        NOT EXISTS (SELECT FROM market.instruments AS known WHERE known.symbol = candle.symbol)
        AND EXISTS (
            SELECT FROM market.instruments AS known
            WHERE known.market = market.market_of(candle.symbol)
        )
    GROUP BY symbol
    """,
    Severity.WARNING,
)

# The exchange changes ticks and steps; the registry has those of the day on which it was read.
PRICES_LIE_ON_THE_TICK = Check(
    "prices_lie_on_the_tick",
    "the prices of a minute near the registry's last reading are multiples of the tick",
    """
    SELECT
        candle.symbol,
        candle.open_time,
        'tick ' || tick_size || ', prices ' || open || ', ' || high || ', ' || low || ', ' || close
        AS detail
    FROM (SELECT * FROM {{batch}}) AS candle, LATERAL (
        SELECT listed.tick_size FROM market.instruments AS listed
        WHERE
            listed.symbol = candle.symbol
            AND listed.listed_to IS NULL
            AND candle.open_time BETWEEN
            listed.seen_at - interval '12 hours' AND listed.seen_at + interval '1 day'
    ) AS filters
    WHERE
        trade_count > 0
        AND (
            mod(open, tick_size) <> 0 OR mod(high, tick_size) <> 0
            OR mod(low, tick_size) <> 0 OR mod(close, tick_size) <> 0
        )
    """,
    Severity.WARNING,
)

VOLUMES_LIE_ON_THE_STEP = Check(
    "volumes_lie_on_the_step",
    "the volumes of a minute near the registry's last reading are multiples of the step",
    """
    SELECT
        candle.symbol,
        candle.open_time,
        'step ' || step_size || ', volumes ' || volume || ' and ' || taker_buy_volume AS detail
    FROM (SELECT * FROM {{batch}}) AS candle, LATERAL (
        SELECT listed.step_size FROM market.instruments AS listed
        WHERE
            listed.symbol = candle.symbol
            AND listed.listed_to IS NULL
            AND candle.open_time BETWEEN
            listed.seen_at - interval '12 hours' AND listed.seen_at + interval '1 day'
    ) AS filters
    WHERE mod(volume, step_size) <> 0 OR mod(taker_buy_volume, step_size) <> 0
    """,
    Severity.WARNING,
)

CANDLE_CHECKS = (
    PRICES_ARE_POSITIVE,
    SILENT_MINUTES_HAVE_ONE_PRICE,
    QUOTE_VOLUME_FITS_THE_PRICES,
    TRADE_COUNT_FITS_THE_IDS,
    STREAMED_MINUTES_ARE_CONFIRMED,
    ROWS_LIE_OUTSIDE_OUTAGES,
    VOLUME_EQUALS_ITS_TRADES,
    ROWS_LIE_WITHIN_A_LISTING,
    SYMBOLS_ARE_REGISTERED,
    PRICES_LIE_ON_THE_TICK,
    VOLUMES_LIE_ON_THE_STEP,
)

VOCABULARY = {
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
}
"""Fragments of queries that come from the domain package."""
