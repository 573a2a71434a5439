"""Rules about a candle and the candles before it.

The batch contains whole stretches: each begins with a known row and ends with the next one, so that
a gap has both ends, and a row its predecessor. Only rows of one stretch are compared.
"""

from __future__ import annotations

from include.quality.check import Check, Severity

# Times are truncated to minutes, so that a row a second late is not reported as missing too. A
# gap's age is the age of the row after it: after a reconnect the streamer repairs the gap, however
# long the disconnect was. If a listing ended in the gap, only minutes of the next listing can be
# missing.
NO_MINUTE_IS_MISSING = Check(
    "no_minute_is_missing",
    "between a symbol's rows every minute of a listing has one, outages and the last ten minutes "
    "aside",
    """
    WITH neighbours AS (
        SELECT
            symbol,
            minute,
            lag(minute) OVER (PARTITION BY symbol, stretch ORDER BY minute) AS previous
        FROM (
            SELECT DISTINCT symbol, stretch, date_trunc('minute', open_time) AS minute
            FROM {{batch}}
        ) AS minutes
    ),

    gaps AS (
        SELECT
            symbol,
            tstzmultirange(tstzrange(previous + interval '1 minute', minute))
            - coalesce(
                (
                    SELECT range_agg(outages.minutes) FROM ops.outages
                    WHERE
                        outages.market = market.market_of(neighbours.symbol)
                        AND (outages.symbol = neighbours.symbol OR outages.symbol IS NULL)
                ),
                '{{{{}}}}'
            )
            - coalesce(
                (
                    SELECT range_agg(tstzrange(
                        previous + interval '1 minute',
                        coalesce(
                            (
                                SELECT min(later.listed_from) FROM market.instruments AS later
                                WHERE
                                    later.symbol = listed.symbol
                                    AND later.listed_from >= listed.listed_to
                            ),
                            minute
                        )
                    ))
                    FROM market.instruments AS listed
                    WHERE
                        listed.symbol = neighbours.symbol
                        AND listed.listed_to > previous AND listed.listed_to <= minute
                ),
                '{{{{}}}}'
            ) AS missing
        FROM neighbours
        WHERE minute > previous + interval '1 minute' AND minute <= {end} - {min_age}
    )

    SELECT
        symbol,
        lower(gap) AS open_time,
        extract(epoch FROM upper(gap) - lower(gap))::bigint / 60 || ' minutes missing' AS detail
    FROM gaps, LATERAL unnest(missing) AS gap
    """,
)

# A row has no predecessor at the start of history, so minutes before it are no gap. If history
# begins more than a day after the listing, earlier history was not requested.
FIRST_MINUTES_ARE_THERE = Check(
    "first_minutes_are_there",
    "a symbol whose rows begin on the day of its listing has them from its first minute",
    """
    SELECT
        symbol,
        lower(gap) AS open_time,
        extract(epoch FROM upper(gap) - lower(gap))::bigint / 60 || ' minutes missing' AS detail
    FROM
        (
            SELECT symbol, min(date_trunc('minute', open_time)) AS minute
            FROM {{batch}} GROUP BY symbol
        ) AS begun,
        LATERAL (
            SELECT min(listed.listed_from) AS moment FROM market.instruments AS listed
            WHERE listed.symbol = begun.symbol
            HAVING
                min(listed.listed_from) > begun.minute - interval '1 day'
                AND min(listed.listed_from) <= begun.minute - interval '1 minute'
        ) AS listing,
        LATERAL unnest(
            tstzmultirange(tstzrange(date_trunc('minute', listing.moment), begun.minute))
            - coalesce(
                (
                    SELECT range_agg(outages.minutes) FROM ops.outages
                    WHERE
                        outages.market = market.market_of(begun.symbol)
                        AND (outages.symbol = begun.symbol OR outages.symbol IS NULL)
                ),
                '{{{{}}}}'
            )
        ) AS gap
    WHERE
        begun.minute <= {end} - {min_age}
        AND NOT EXISTS (
            SELECT FROM market.candles_1m AS earlier
            WHERE earlier.symbol = begun.symbol AND earlier.open_time < begun.minute
        )
    """,
    Severity.WARNING,
)

# Uses the method of ops.candle_evidence(): trades are counted from the last row that has ids, so
# the next row with ids proves the rows without (REST, dumps). Raw ids of USD-M skip by design, but
# never go back. Other rules report missing minutes. Across an outage the ids must be contiguous,
# otherwise it was no outage.
TRADE_IDS_ARE_CONTINUOUS = Check(
    "trade_ids_are_continuous",
    "a minute's first trade id follows the last of the minutes before; on USD-M none comes twice",
    """
    WITH counted AS (
        SELECT
            symbol,
            stretch,
            open_time,
            date_trunc('minute', open_time) AS minute,
            trade_count,
            first_trade_id,
            last_trade_id,
            row_number() OVER in_order AS place,
            sum(trade_count) OVER in_order AS trades_so_far,
            count(trade_count) OVER in_order AS counts_so_far
        FROM {{batch}}
        WINDOW in_order AS (PARTITION BY symbol, stretch ORDER BY open_time)
    ),

    with_ids AS (
        SELECT
            *,
            last_trade_id - first_trade_id + 1 < trade_count
            OR market.market_of(symbol) = 'spot'
            AND last_trade_id - first_trade_id + 1 > trade_count AS miscounts
        FROM counted
        WHERE trade_count > 0 AND first_trade_id IS NOT NULL AND last_trade_id IS NOT NULL
    ),

    compared AS (
        SELECT
            *,
            lag(minute) OVER in_order AS previous_minute,
            lag(miscounts) OVER in_order AS previous_miscounts,
            lag(last_trade_id) OVER in_order + 1
            + trades_so_far - trade_count - lag(trades_so_far) OVER in_order AS expected,
            place - lag(place) OVER in_order AS rows_on,
            counts_so_far - lag(counts_so_far) OVER in_order AS counts_on
        FROM with_ids
        WINDOW in_order AS (PARTITION BY symbol, stretch ORDER BY open_time)
    )

    SELECT
        symbol,
        open_time,
        'ids ' || first_trade_id || ' to ' || last_trade_id || ', expected from ' || expected
        AS detail
    FROM compared
    WHERE
        (
            first_trade_id < expected
            OR market.market_of(symbol) = 'spot' AND first_trade_id > expected
        )
        AND NOT miscounts AND NOT previous_miscounts
        AND counts_on = rows_on
        AND (
            SELECT coalesce(sum(extract(epoch FROM upper(open.span) - lower(open.span)) / 60), 0)
            FROM unnest(
                tstzmultirange(tstzrange(previous_minute, minute))
                - coalesce(
                    (
                        SELECT range_agg(outages.minutes) FROM ops.outages
                        WHERE
                            outages.market = market.market_of(compared.symbol)
                            AND (outages.symbol = compared.symbol OR outages.symbol IS NULL)
                    ),
                    '{{{{}}}}'
                )
            ) AS open (span)
        ) = rows_on
        AND NOT EXISTS (
            SELECT FROM market.instruments AS listed
            WHERE
                listed.symbol = compared.symbol
                AND listed.listed_from > previous_minute AND listed.listed_from <= minute
        )
    """,
)

# The usual range is the mean of the day before, without silent minutes. Only closes that moved by
# more than the minimum are checked.
CLOSES_DO_NOT_JUMP = Check(
    "closes_do_not_jump",
    "a close differs from the one before by no more than QUALITY_JUMP_MULTIPLE usual ranges",
    """
    WITH moved AS (
        SELECT symbol, open_time, close, previous_close
        FROM (
            SELECT
                symbol,
                open_time,
                close,
                lag(open_time) OVER in_order AS previous_time,
                lag(close) OVER in_order AS previous_close
            FROM {{batch}}
            WINDOW in_order AS (PARTITION BY symbol, stretch ORDER BY open_time)
        ) AS neighbours
        WHERE
            previous_time = open_time - interval '1 minute'
            AND previous_close > 0 AND close > 0
            AND abs(close - previous_close) > {least_jump} * previous_close
            AND NOT EXISTS (
                SELECT FROM market.instruments AS listed
                WHERE
                    listed.symbol = neighbours.symbol
                    AND listed.listed_from > previous_time
                    AND listed.listed_from <= neighbours.open_time
            )
    )

    SELECT
        symbol,
        open_time,
        'close ' || close || ' after ' || previous_close || ': '
        || round(abs(close - previous_close) / usual.range, 1) || ' times the usual range of '
        || trim_scale(round(usual.range, 8)) AS detail
    FROM moved, LATERAL (
        SELECT nullif(avg(earlier.high - earlier.low), 0) AS range
        FROM market.candles_1m AS earlier
        WHERE
            earlier.symbol = moved.symbol
            AND earlier.open_time >= moved.open_time - interval '1 day'
            AND earlier.open_time < moved.open_time
            AND earlier.trade_count > 0
            AND earlier.high >= earlier.low AND earlier.high < 'Infinity' AND earlier.low > 0
        HAVING count(*) >= {usual_rows}
    ) AS usual
    WHERE abs(close - previous_close) > {jump_multiple} * usual.range
    """,
    Severity.WARNING,
)

NEIGHBOUR_CHECKS = (
    NO_MINUTE_IS_MISSING,
    FIRST_MINUTES_ARE_THERE,
    TRADE_IDS_ARE_CONTINUOUS,
    CLOSES_DO_NOT_JUMP,
)
