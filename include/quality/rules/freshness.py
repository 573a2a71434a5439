"""Rules about the newest minute of each streamed symbol."""

from __future__ import annotations

from include.quality.check import Check, Severity, Suite

# Only for streamed symbols: loaded history may end anywhere.
SYMBOLS_ARE_NOT_STALE = Check(
    "symbols_are_not_stale",
    "a trading symbol that is streamed has a row that is no older than QUALITY_STALE_AFTER_MINUTES",
    """
    SELECT symbol, open_time, 'its last row, ' || {end} - open_time || ' before the end' AS detail
    FROM (SELECT * FROM {{batch}}) AS latest
    WHERE is_quiet AND is_streamed
    """,
)

# The rows do not show whether a symbol was delisted, or its stream died unnoticed for a day.
STREAMS_DO_NOT_END_ALONE = Check(
    "streams_do_not_end_alone",
    "a trading symbol that was streamed once still has rows, while its market is streamed on",
    """
    SELECT
        symbol, open_time,
        'its last row; streamed until ' || to_char(streamed_until AT TIME ZONE 'UTC', 'YYYY-MM-DD')
        || ', its market for a day and longer after that' AS detail
    FROM (SELECT * FROM {{batch}}) AS latest
    WHERE is_quiet AND streamed_until IS NOT NULL AND NOT is_streamed
    """,
    severity=Severity.WARNING,
)

# A dead stream stays a fault however long ago it died. A symbol counts as no longer streamed if
# other symbols of its market were streamed for a day without it. Its rows show that it was
# streamed, or its coverage does if files contain its later minutes. A symbol that the exchange has
# halted has no later rows, nor has a symbol in an outage: neither is a fault.
# The scope of the other rules ends at the present.
MINUTES_HAVE_BEGUN = Check(
    "minutes_have_begun",
    "no row lies more than an hour in the future",
    """
    SELECT
        symbol, open_time,
        'begins ' || to_char(open_time - now(), 'FMDDD "days" HH24:MI') || ' from now' AS detail
    FROM (SELECT * FROM {{batch}}) AS later
    """,
)

FUTURE = Suite(
    "future",
    "rows later than the present",
    """
    SELECT symbol, open_time FROM market.candles_1m
    WHERE
        open_time > now() + interval '1 hour'
        AND ({all_symbols} OR symbol = ANY ({symbols}))
    """,
    (MINUTES_HAVE_BEGUN,),
)

FRESHNESS = Suite(
    "freshness",
    "the newest minute of each symbol",
    """
    SELECT
        symbol,
        open_time,
        is_streamed,
        streamed_until,
        open_time < {end} - {stale_after}
        AND NOT EXISTS (
            SELECT FROM market.instruments AS listed
            WHERE
                listed.symbol = judged.symbol
                AND (listed.listed_to IS NOT NULL OR listed.status <> 'TRADING')
                AND NOT EXISTS (
                    SELECT FROM market.instruments AS other
                    WHERE
                        other.symbol = listed.symbol
                        AND other.listed_to IS NULL
                        AND other.status = 'TRADING'
                        AND other.listed_from < {end} - {stale_after}
                )
        )
        AND NOT coalesce(
            (
                SELECT range_agg(outages.minutes) FROM ops.outages
                WHERE
                    outages.market = market.market_of(judged.symbol)
                    AND (outages.symbol = judged.symbol OR outages.symbol IS NULL)
            ) @> tstzrange(open_time + interval '1 minute', {end}),
            false
        ) AS is_quiet
    FROM (
        SELECT
            known.symbol,
            newest.open_time,
            streamed.until AS streamed_until,
            coalesce(
                streamed.until >= max(streamed.until) OVER (
                    PARTITION BY market.market_of(known.symbol)
                ) - {followed_for},
                false
            ) AS is_streamed
        FROM ops.candle_symbols() AS known (symbol)
        CROSS JOIN LATERAL (
            SELECT candle.open_time FROM market.candles_1m AS candle
            WHERE candle.symbol = known.symbol AND candle.open_time < {end}
            ORDER BY candle.open_time DESC LIMIT 1
        ) AS newest
        CROSS JOIN LATERAL (
            SELECT greatest(
                (
                    SELECT candle.open_time FROM market.candles_1m AS candle
                    WHERE
                        candle.symbol = known.symbol
                        AND candle.open_time >= newest.open_time - {followed_for}
                        AND candle.open_time < {end}
                        AND candle.source IN ({live_sources})
                    ORDER BY candle.open_time DESC LIMIT 1
                ),
                (
                    SELECT max(last.until)
                    FROM unnest(ARRAY[{live_sources}]::text[]) AS live (source)
                    CROSS JOIN LATERAL (
                        SELECT least(upper(said.minutes), {end}) AS until FROM ops.coverage AS said
                        WHERE
                            said.symbol = known.symbol
                            AND said.source = live.source
                            AND said.day <= {end}::date
                        ORDER BY said.day DESC LIMIT 1
                    ) AS last
                )
            ) AS until
        ) AS streamed
    ) AS judged
    WHERE {all_symbols} OR symbol = ANY ({symbols})
    """,
    (SYMBOLS_ARE_NOT_STALE, STREAMS_DO_NOT_END_ALONE),
    key=("symbol",),
)
