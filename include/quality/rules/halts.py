"""A rule about halts of a whole market during which klines continue.

During a halt spot has no klines: its minutes are outages, or missing. USD-M continues with empty
klines, and only all symbols together show that nobody traded (``ops.suspected_outages``). Reading
the rows of all symbols again would double the cost of a daily run. So ``quality_minutes`` records
for each checked minute whether it had trades, and the function is called only for minutes without
trades and for minutes where the rule failed before.
"""

from __future__ import annotations

from typing import LiteralString

from include.quality.check import Check, Severity, Suite

MINUTES: LiteralString = """
CREATE TEMPORARY TABLE quality_minutes (
    open_time timestamptz PRIMARY KEY,
    has_trades boolean NOT NULL
)
"""

FAILED_BEFORE: LiteralString = """
INSERT INTO quality_minutes
SELECT DISTINCT open_time, false FROM ops.quality_failures
WHERE run_at >= {open_since} AND suite = 'halts' AND {all_symbols}
"""

NOTE_MINUTES: LiteralString = """
INSERT INTO quality_minutes AS noted
SELECT open_time, coalesce(max(trade_count), 0) > 0
FROM quality_candles
WHERE market.market_of(symbol) = 'um'
GROUP BY open_time
ON CONFLICT (open_time) DO UPDATE SET has_trades = true
WHERE excluded.has_trades AND NOT noted.has_trades
"""

# If few symbols are stored, some minutes without any trade are usual.
HALTS_ARE_RECORDED = Check(
    "halts_are_recorded",
    "if no USD-M symbol traded for longer than in the two hours before, ops.outages has the "
    "minutes",
    """
    SELECT
        NULL::text AS symbol,
        lower(unrecorded.span) AS open_time,
        'um' AS key,
        ops.minutes_in(tstzmultirange(unrecorded.span)) || ' minutes in which none of ' || symbols
        || ' symbols traded' AS detail
    FROM (SELECT * FROM {{batch}}) AS halt, unnest(halt.unrecorded) AS unrecorded (span)
    WHERE ops.minutes_in(tstzmultirange(halt.minutes)) > halt.silent_before
    """,
    Severity.WARNING,
)

# A rarely traded symbol has many silent minutes. Each is first compared with the symbols of longest
# history, one of which usually traded. The checked rows may contain only part of a halt; the whole
# halt lies between two trades of the market. Silence that begins or is recorded later changes the
# usual silence of the two hours after it. The newest minutes may lack rows of symbols that traded.
HALTS = Suite(
    "halts",
    "minutes in which no USD-M symbol traded",
    """
    SELECT * FROM (
        WITH recorded AS (
            SELECT coalesce(range_agg(outages.minutes), tstzmultirange()) AS minutes
            FROM ops.outages WHERE outages.market = 'um' AND outages.symbol IS NULL
        ),

        known AS MATERIALIZED (
            SELECT names.symbol FROM ops.candle_symbols() AS names (symbol)
            WHERE market.market_of(names.symbol) = 'um'
            ORDER BY lower(ops.stored_minutes(names.symbol)), names.symbol
        ),

        silent AS (
            SELECT noted.open_time
            FROM quality_minutes AS noted
            LEFT JOIN LATERAL (
                SELECT true AS is_there
                FROM known
                CROSS JOIN LATERAL (
                    SELECT candle.trade_count FROM market.candles_1m AS candle
                    WHERE candle.symbol = known.symbol AND candle.open_time = noted.open_time
                    OFFSET 0
                ) AS stored
                WHERE stored.trade_count > 0
                LIMIT 1
            ) AS trade ON true
            WHERE
                NOT noted.has_trades
                AND noted.open_time < {end} - {min_age}
                AND trade.is_there IS NULL
        ),

        seen AS (
            SELECT found.minutes
            FROM (
                SELECT range_agg(tstzrange(
                    open_time - interval '1 minute',
                    least(open_time + {silence_before}, {end} - {min_age})
                )) AS spans
                FROM silent
            ) AS nearby
            CROSS JOIN LATERAL unnest(nearby.spans) AS near (span)
            CROSS JOIN LATERAL ops.suspected_outages(lower(near.span), upper(near.span)) AS found
        ),

        whole AS (
            SELECT DISTINCT found.minutes, found.symbols
            FROM seen
            CROSS JOIN LATERAL (
                SELECT
                    max(earlier.open_time) + interval '1 minute' AS from_time,
                    min(later.open_time) AS to_time
                FROM known
                LEFT JOIN LATERAL (
                    SELECT candle.open_time FROM market.candles_1m AS candle
                    WHERE
                        candle.symbol = known.symbol
                        AND candle.open_time < lower(seen.minutes)
                        AND candle.open_time >= lower(seen.minutes) - {longest_halt}
                        AND candle.trade_count > 0
                    ORDER BY candle.open_time DESC LIMIT 1
                ) AS earlier ON true
                LEFT JOIN LATERAL (
                    SELECT candle.open_time FROM market.candles_1m AS candle
                    WHERE
                        candle.symbol = known.symbol
                        AND candle.open_time >= upper(seen.minutes)
                        AND candle.open_time < upper(seen.minutes) + {longest_halt}
                        AND candle.trade_count > 0
                    ORDER BY candle.open_time LIMIT 1
                ) AS later ON true
            ) AS traded
            CROSS JOIN LATERAL ops.suspected_outages(
                coalesce(traded.from_time, lower(seen.minutes) - {longest_halt}),
                least(
                    coalesce(traded.to_time, upper(seen.minutes) + {longest_halt}),
                    {end} - {min_age}
                )
            ) AS found
        )

        SELECT
            whole.minutes,
            whole.symbols,
            tstzmultirange(whole.minutes) - recorded.minutes AS unrecorded,
            ops.minutes_in(
                tstzmultirange(tstzrange(
                    lower(whole.minutes) - {silence_before}, lower(whole.minutes)
                ))
                - recorded.minutes
                - coalesce(
                    (
                        SELECT range_agg(tstzrange(open_time, open_time + interval '1 minute'))
                        FROM (
                            SELECT DISTINCT candle.open_time
                            FROM known
                            CROSS JOIN LATERAL (
                                SELECT open_time FROM market.candles_1m
                                WHERE
                                    candles_1m.symbol = known.symbol
                                    AND open_time >= lower(whole.minutes) - {silence_before}
                                    AND open_time < lower(whole.minutes)
                                    AND trade_count > 0
                            ) AS candle
                        ) AS traded
                    ),
                    tstzmultirange()
                )
            ) AS silent_before
        FROM whole
        CROSS JOIN recorded
    ) AS halts
    """,
    (HALTS_ARE_RECORDED,),
)
