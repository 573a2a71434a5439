WITH differing AS (
    SELECT
        d.symbol,
        d.loser_source AS source,
        (d.open_time AT TIME ZONE 'UTC')::date AS day,
        count(DISTINCT d.open_time) AS minutes
    FROM ops.discrepancies AS d
    INNER JOIN market.candles_1m AS c ON d.symbol = c.symbol AND d.open_time = c.open_time
    -- The losing values may have won since.
    WHERE (
        d.loser_open, d.loser_high, d.loser_low, d.loser_close, d.loser_volume,
        d.loser_quote_volume, d.loser_trade_count, d.loser_taker_buy_volume,
        d.loser_taker_buy_quote_volume
    ) <> (
        c.open, c.high, c.low, c.close, c.volume,
        c.quote_volume, c.trade_count, c.taker_buy_volume,
        c.taker_buy_quote_volume
    )
    GROUP BY 1, 2, 3
),

covered AS (
    SELECT
        v.symbol,
        v.source,
        v.day,
        sum(extract(epoch FROM upper(m.span) - lower(m.span)) / 60)::bigint AS minutes
    FROM ops.coverage AS v
    CROSS JOIN LATERAL unnest(v.minutes) AS m (span)
    GROUP BY 1, 2, 3
)

SELECT
    coalesce(v.symbol, d.symbol) AS symbol,
    coalesce(v.day, d.day) AS day,
    coalesce(v.source, d.source) AS source,
    coalesce(v.minutes, 0) AS covered_minutes,
    coalesce(d.minutes, 0) AS differing_minutes,
    CASE
        WHEN d.minutes > 0 THEN 'differs'
        WHEN v.minutes >= 1440 THEN 'agrees'
        ELSE 'agrees_so_far'
    END AS verdict
FROM covered AS v
FULL JOIN differing AS d ON v.symbol = d.symbol AND v.source = d.source AND v.day = d.day
