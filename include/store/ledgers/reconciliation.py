"""Compare a day of a symbol between the live path, REST and the dump files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from psycopg.rows import class_row

from include.domain.ranges import Ranges
from include.domain.timeframes import DAY_US, from_us, to_us
from include.store.candles.merging import Connection
from include.store.postgres.pools import translated

HELD_FOR_US = 7 * DAY_US
"""A symbol without rows for this long was loaded once and is not loaded every day."""

# The stored row shows which part of the live path wrote it last. Once a file or REST confirms the
# row, that information is lost, so it is recorded before.
_NOTE_LIVE = """
INSERT INTO ops.coverage AS v (symbol, source, day, minutes)
SELECT
    symbol,
    source,
    (open_time AT TIME ZONE 'UTC')::date,
    range_agg(tstzrange(open_time, open_time + interval '1 minute'))
FROM market.candles_1m
WHERE
    symbol = %s AND open_time >= %s AND open_time < %s
    AND source IN ('kline', 'stream') AND status <> 'partial'
GROUP BY 1, 2, 3
ORDER BY 2, 3
ON CONFLICT (symbol, source, day) DO UPDATE SET minutes = v.minutes + excluded.minutes
WHERE NOT v.minutes @> excluded.minutes
"""

# A kline is the live path's final value, so the aggregated candle counts only without a kline. A
# value that its own source has replaced, by a newer row or a re-issued file, does not count.
# Minutes with a row from any source are no outage, even if REST reports none. REST has the highest
# rank: where the stored row is not REST's, REST had no row.
_COMPARE = """
WITH day_of (start_time, end_time) AS (
    SELECT %(day)s::date::timestamp AT TIME ZONE 'UTC',
        (%(day)s::date + 1)::timestamp AT TIME ZONE 'UTC'
),

requested (symbol) AS (SELECT unnest(%(symbols)s::text[])),

reported AS (
    SELECT
        symbol,
        coalesce(range_agg(minutes) FILTER (WHERE source = 'kline'), '{}') AS kline,
        coalesce(range_agg(minutes) FILTER (WHERE source = 'stream'), '{}') AS stream,
        coalesce(range_agg(minutes) FILTER (WHERE source = 'rest'), '{}') AS rest,
        coalesce(range_agg(minutes) FILTER (WHERE source = 'dump_daily'), '{}') AS daily,
        coalesce(range_agg(minutes) FILTER (WHERE source = 'dump_monthly'), '{}') AS monthly
    FROM ops.coverage
    WHERE symbol = ANY(%(symbols)s) AND day = %(day)s
    GROUP BY symbol
),

halted AS (
    SELECT requested.symbol, range_agg(o.minutes) AS minutes
    FROM requested
    INNER JOIN ops.outages AS o
        ON
            o.market = market.market_of(requested.symbol)
            AND (o.symbol IS NULL OR o.symbol = requested.symbol)
    GROUP BY requested.symbol
),

stored AS (
    SELECT
        c.symbol,
        range_agg(tstzrange(c.open_time, c.open_time + interval '1 minute')) AS minutes,
        range_agg(tstzrange(c.open_time, c.open_time + interval '1 minute'))
        FILTER (WHERE c.source <> 'rest') AS of_others,
        count(*) FILTER (WHERE c.status = 'verified') AS verified,
        count(*) FILTER (WHERE c.revision > 0) AS revised
    FROM market.candles_1m AS c, day_of
    WHERE
        c.symbol = ANY(%(symbols)s)
        AND c.open_time >= day_of.start_time AND c.open_time < day_of.end_time
    GROUP BY c.symbol
),

differing AS (
    SELECT d.symbol, d.loser_source AS source, d.open_time
    FROM ops.discrepancies AS d
    CROSS JOIN day_of
    INNER JOIN market.candles_1m AS c ON d.symbol = c.symbol AND d.open_time = c.open_time
    WHERE
        d.symbol = ANY(%(symbols)s)
        AND d.open_time >= day_of.start_time AND d.open_time < day_of.end_time
        AND d.loser_source <> c.source AND d.loser_status <> 'partial'
        AND NOT EXISTS (
            SELECT FROM ops.dump_files AS f
            WHERE
                f.symbol = d.symbol AND f.kind = 'klines' AND f.verdict = 'loaded'
                AND f.published_at > d.loser_evidence_at
                AND f.path LIKE
                CASE d.loser_source
                    WHEN 'dump_daily' THEN '%%/daily/%%' WHEN 'dump_monthly' THEN '%%/monthly/%%'
                END
                AND (f.detail ->> 'from')::timestamptz <= d.open_time
                AND (f.detail ->> 'to')::timestamptz > d.open_time
        )
        AND (
            d.loser_open, d.loser_high, d.loser_low, d.loser_close, d.loser_volume,
            d.loser_quote_volume, d.loser_trade_count, d.loser_taker_buy_volume,
            d.loser_taker_buy_quote_volume
        ) <> (
            c.open, c.high, c.low, c.close, c.volume,
            c.quote_volume, c.trade_count, c.taker_buy_volume,
            c.taker_buy_quote_volume
        )
),

lost AS (
    SELECT
        d.symbol,
        count(DISTINCT d.open_time) FILTER (
            WHERE d.source = 'kline' OR (d.source = 'stream' AND NOT s.kline @> d.open_time)
        ) AS live,
        count(DISTINCT d.open_time) FILTER (WHERE d.source = 'rest') AS rest,
        count(DISTINCT d.open_time) FILTER (WHERE d.source = 'dump_daily') AS daily,
        count(DISTINCT d.open_time) FILTER (WHERE d.source = 'dump_monthly') AS monthly
    FROM differing AS d
    INNER JOIN reported AS s ON d.symbol = s.symbol
    GROUP BY d.symbol
),

sets AS (
    SELECT
        requested.symbol,
        s.kline + s.stream AS live,
        s.rest - coalesce(stored.of_others, '{}') AS rest,
        s.daily,
        s.monthly,
        coalesce(stored.minutes, '{}') AS stored,
        tstzmultirange(tstzrange(day_of.start_time, day_of.end_time))
        * coalesce(halted.minutes, '{}')
        - s.kline - s.stream - s.daily - s.monthly - coalesce(stored.minutes, '{}') AS halted,
        coalesce(stored.verified, 0) AS verified,
        coalesce(stored.revised, 0) AS revised
    FROM requested
    CROSS JOIN day_of
    INNER JOIN reported AS s ON requested.symbol = s.symbol
    LEFT JOIN stored ON requested.symbol = stored.symbol
    LEFT JOIN halted ON requested.symbol = halted.symbol
),

wanted AS (
    SELECT *, live + rest + daily + monthly + stored - halted AS expected
    FROM sets
),

judged AS (
    SELECT
        *,
        stored @> expected AND rest @> expected AND daily @> expected
        AND (monthly = '{}' OR monthly @> expected)
        AND verified = ops.minutes_in(stored) AS is_complete
    FROM wanted
)

SELECT
    j.symbol,
    %(day)s::date AS day,
    CASE
        WHEN coalesce(l.live + l.rest + l.daily + l.monthly, 0) > 0 THEN 'differs'
        WHEN j.is_complete THEN 'agrees'
        ELSE 'incomplete'
    END AS verdict,
    j.is_complete,
    ops.minutes_in(j.expected) AS expected_minutes,
    ops.minutes_in(j.stored) AS stored_minutes,
    j.verified::integer AS verified_minutes,
    ops.minutes_in(j.halted) AS outage_minutes,
    j.revised::integer AS revised_minutes,
    ops.minutes_in(j.live) AS live_minutes,
    coalesce(l.live, 0)::integer AS live_differing,
    ops.minutes_in(j.rest - j.halted) AS rest_minutes,
    coalesce(l.rest, 0)::integer AS rest_differing,
    ops.minutes_in(j.daily) AS daily_minutes,
    coalesce(l.daily, 0)::integer AS daily_differing,
    ops.minutes_in(j.monthly) AS monthly_minutes,
    coalesce(l.monthly, 0)::integer AS monthly_differing
FROM judged AS j
LEFT JOIN lost AS l ON j.symbol = l.symbol
ORDER BY j.symbol
"""

_HELD = """
SELECT i.symbol
FROM market.instruments AS i
WHERE
    i.listed_from < %(end)s AND (i.listed_to IS NULL OR i.listed_to > %(start)s)
    AND (
        EXISTS (
            SELECT FROM market.candles_1m AS c
            WHERE c.symbol = i.symbol AND c.open_time >= %(start)s AND c.open_time < %(end)s
        )
        OR (
            i.status = 'TRADING'
            AND EXISTS (
                SELECT FROM market.candles_1m AS c
                WHERE c.symbol = i.symbol AND c.open_time >= %(since)s AND c.open_time < %(start)s
            )
        )
    )
GROUP BY i.symbol
ORDER BY i.symbol
"""

_ANSWERED_BY_REST = """
SELECT lower(m.span), upper(m.span)
FROM unnest(
    tstzmultirange(tstzrange(%(start)s, %(end)s))
    * coalesce((
        SELECT range_agg(v.minutes) FROM ops.coverage AS v
        WHERE v.symbol = %(symbol)s AND v.source = 'rest'
    ), '{}')
    - coalesce((
        SELECT range_agg(tstzrange(c.open_time, c.open_time + interval '1 minute'))
        FROM market.candles_1m AS c
        WHERE
            c.symbol = %(symbol)s AND c.open_time >= %(start)s AND c.open_time < %(end)s
            AND c.source <> 'rest'
    ), '{}')
) AS m (span)
ORDER BY 1
"""

_HAS_ROWS = """
SELECT EXISTS (
    SELECT FROM market.candles_1m WHERE symbol = %s AND open_time >= %s AND open_time < %s
)
"""


@dataclass(frozen=True, slots=True)
class DayVerdict:
    """One row of ``ops.reconciliations``; figures are minutes."""

    symbol: str
    day: date
    verdict: str
    is_complete: bool
    expected_minutes: int
    stored_minutes: int
    verified_minutes: int
    outage_minutes: int
    revised_minutes: int
    live_minutes: int
    live_differing: int
    rest_minutes: int
    rest_differing: int
    daily_minutes: int
    daily_differing: int
    monthly_minutes: int
    monthly_differing: int


def note_live(connection: Connection, symbol: str, start_us: int, end_us: int) -> None:
    """Record the minutes that the live path wrote, before other sources confirm or correct them."""
    with translated(connection):
        connection.execute(_NOTE_LIVE, (symbol, from_us(start_us), from_us(end_us)))


def compare_day(connection: Connection, symbols: Sequence[str], day_us: int) -> list[DayVerdict]:
    """Compare the sources of a UTC day, by symbol; symbols without any source are absent.

    Args:
        day_us: start of the day.
    """
    arguments = {"symbols": list(symbols), "day": from_us(day_us).date()}
    with translated(connection), connection.cursor(row_factory=class_row(DayVerdict)) as cursor:
        return cursor.execute(_COMPARE, arguments).fetchall()


def answered_by_rest(connection: Connection, symbol: str, start_us: int, end_us: int) -> Ranges:
    """Return the minutes of a range (µs) for which REST returned a row, or confirmed that there is
    none.

    A later row from another source, for a minute without a REST row, does not count as REST's.
    """
    arguments = {"symbol": symbol, "start": from_us(start_us), "end": from_us(end_us)}
    with translated(connection):
        rows = connection.execute(_ANSWERED_BY_REST, arguments).fetchall()
    return [(to_us(start), to_us(end)) for start, end in rows]


def expected_symbols(connection: Connection, start_us: int, end_us: int) -> list[str]:
    """Return the symbols for which the table should have rows in a range (µs).

    These are symbols with rows in the range, and trading symbols with rows in the week before.
    """
    arguments = {
        "since": from_us(start_us - HELD_FOR_US),
        "start": from_us(start_us),
        "end": from_us(end_us),
    }
    with translated(connection):
        rows = connection.execute(_HELD, arguments).fetchall()
    return [symbol for (symbol,) in rows]


def has_rows(connection: Connection, symbol: str, start_us: int, end_us: int) -> bool:
    """Whether the table has any row of a symbol in a range (µs)."""
    with translated(connection):
        row = connection.execute(_HAS_ROWS, (symbol, from_us(start_us), from_us(end_us))).fetchone()
    return row is not None and bool(row[0])
