-- A function, because the window functions of a view would read all rows of a symbol instead of the
-- range. The expected trade id counts on from the last row with ids, so rows without ids (REST, dump
-- files) are proven by the next row with ids.
--
-- REST confirms only rows of source rest. Its coverage includes minutes for which it answered that no
-- candle exists, and another source may have a candle of such a minute. Had REST returned the candle,
-- the row would have source rest, because REST has the highest rank.
CREATE OR REPLACE FUNCTION ops.candle_evidence(
    of_symbol text, from_time timestamptz, to_time timestamptz
)
RETURNS TABLE (
    symbol text,
    open_time timestamptz,
    status text,
    source text,
    evidence_at timestamptz,
    confirmed_by text [],
    contradicted_by text [],
    trade_count bigint,
    first_trade_id bigint,
    last_trade_id bigint,
    expected_first_trade_id bigint,
    continuity text,
    is_broken boolean,
    missing_minutes integer
)
LANGUAGE sql STABLE PARALLEL SAFE ROWS 1440
AS $$
    WITH stored AS MATERIALIZED (
        SELECT
            c.*,
            (c.open_time AT TIME ZONE 'UTC')::date AS day,
            lag(c.open_time) OVER by_time AS previous_time,
            sum(c.trade_count) OVER by_time AS trades_so_far,
            count(c.last_trade_id) OVER by_time AS rows_with_ids_so_far
        FROM market.candles_1m AS c
        WHERE
            c.symbol = of_symbol
            AND c.open_time < to_time
            AND c.open_time >= from_time - interval '1 day'
            AND c.open_time >= coalesce(
                (
                    SELECT e.open_time FROM market.candles_1m AS e
                    WHERE
                        e.symbol = of_symbol
                        AND e.open_time < from_time
                        AND e.open_time >= from_time - interval '1 day'
                        AND e.last_trade_id IS NOT NULL
                    ORDER BY e.open_time DESC
                    LIMIT 1
                ),
                from_time
            )
        WINDOW by_time AS (ORDER BY c.open_time)
    ),

    counted AS (
        SELECT
            r.*,
            market.market_of(r.symbol) <> 'spot' AS ids_may_skip,
            r.last_trade_id - r.first_trade_id + 1 AS span_of_ids,
            CASE
                WHEN NOT EXISTS (
                    SELECT FROM market.instruments AS i
                    WHERE
                        i.symbol = r.symbol
                        AND i.listed_from > p.open_time AND i.listed_from <= r.open_time
                )
                    THEN p.last_trade_id + 1 + r.trades_so_far - r.trade_count - p.trades_so_far
            END::bigint AS expected
        FROM stored AS r
        LEFT JOIN stored AS p
            ON
                p.last_trade_id IS NOT NULL
                AND p.rows_with_ids_so_far = r.rows_with_ids_so_far - (r.last_trade_id IS NOT NULL)::integer
        WHERE r.open_time >= from_time
    ),

    checked AS (
        SELECT
            r.*,
            CASE
                WHEN r.trade_count = 0 THEN 'silent'
                WHEN r.first_trade_id IS NULL OR r.last_trade_id IS NULL THEN 'no_ids'
                WHEN r.span_of_ids < r.trade_count THEN 'count_mismatch'
                WHEN r.span_of_ids > r.trade_count AND NOT r.ids_may_skip THEN 'count_mismatch'
                WHEN r.expected IS NULL THEN 'first'
                WHEN r.first_trade_id = r.expected THEN 'follows'
                WHEN r.first_trade_id < r.expected THEN 'overlaps'
                WHEN r.ids_may_skip THEN 'ascends'
                ELSE 'skips'
            END AS continuity
        FROM counted AS r
    ),

    confirming AS (
        SELECT r.open_time, array_agg(v.source ORDER BY v.source) AS sources
        FROM checked AS r
        INNER JOIN ops.coverage AS v
            ON
                v.symbol = of_symbol
                AND v.day BETWEEN
                (from_time AT TIME ZONE 'UTC')::date AND (to_time AT TIME ZONE 'UTC')::date
                AND r.day = v.day
                AND v.minutes @> r.open_time
                AND (v.source <> 'rest' OR r.source = 'rest')
        GROUP BY r.open_time
    ),

    differing AS (
        SELECT r.open_time, array_agg(DISTINCT d.loser_source) AS sources
        FROM checked AS r
        INNER JOIN ops.discrepancies AS d
            ON
                d.symbol = of_symbol
                AND d.open_time >= from_time AND d.open_time < to_time
                AND r.open_time = d.open_time
        -- The losing values may have won since.
        WHERE (
            d.loser_open, d.loser_high, d.loser_low, d.loser_close, d.loser_volume,
            d.loser_quote_volume, d.loser_trade_count, d.loser_taker_buy_volume,
            d.loser_taker_buy_quote_volume
        ) IS DISTINCT FROM (
            r.open, r.high, r.low, r.close, r.volume,
            r.quote_volume, r.trade_count, r.taker_buy_volume,
            r.taker_buy_quote_volume
        )
        GROUP BY r.open_time
    )

    SELECT
        r.symbol,
        r.open_time,
        r.status,
        r.source,
        r.evidence_at,
        array(
            SELECT s.source FROM (
                SELECT unnest(t.sources) AS source
                UNION
                SELECT r.source WHERE r.status = 'verified'
            ) AS s
            WHERE s.source <> ALL (coalesce(d.sources, '{}')) OR s.source = r.source
            ORDER BY s.source
        ),
        coalesce(d.sources, '{}'),
        r.trade_count,
        r.first_trade_id,
        r.last_trade_id,
        r.expected,
        r.continuity,
        r.continuity IN ('skips', 'overlaps', 'count_mismatch'),
        CASE WHEN r.previous_time < r.open_time - interval '1 minute'
            THEN (
                SELECT coalesce(sum(extract(epoch FROM upper(h.span) - lower(h.span)) / 60), 0)
                FROM unnest(
                    tstzmultirange(tstzrange(r.previous_time + interval '1 minute', r.open_time))
                    - coalesce((
                        SELECT range_agg(o.minutes) FROM ops.outages AS o
                        WHERE
                            o.market = market.market_of(r.symbol)
                            AND (o.symbol IS NULL OR o.symbol = r.symbol)
                    ), '{}')
                ) AS h (span)
            )
            ELSE 0
        END::integer
    FROM checked AS r
    LEFT JOIN confirming AS t ON r.open_time = t.open_time
    LEFT JOIN differing AS d ON r.open_time = d.open_time
    ORDER BY r.open_time
$$;
COMMENT ON FUNCTION ops.candle_evidence(text, timestamptz, timestamptz) IS
'For each candle of a symbol in a range: the sources that confirm or contradict it, whether its trade ids continue those of the candle before, and how many minutes are missing before it.';
