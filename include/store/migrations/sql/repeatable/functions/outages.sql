-- Spot has no kline of a halted minute: it is an outage, and no row. USD-M has empty ones, which
-- are kept as they are; that nobody traded in a whole market is only seen over all of its symbols.
CREATE OR REPLACE FUNCTION ops.suspected_outages(
    from_time timestamptz,
    to_time timestamptz,
    min_symbols integer DEFAULT 2,
    min_minutes integer DEFAULT 2
)
RETURNS TABLE (minutes tstzrange, symbols integer)
LANGUAGE sql STABLE
AS $$
    WITH silent AS (
        SELECT c.open_time, count(*)::integer AS symbols
        FROM ops.candle_symbols() AS s
        CROSS JOIN LATERAL (
            SELECT k.open_time, k.trade_count FROM market.candles_1m AS k
            WHERE k.symbol = s AND k.open_time >= from_time AND k.open_time < to_time
        ) AS c
        WHERE market.market_of(s) = 'um'
        GROUP BY c.open_time
        HAVING count(*) >= min_symbols AND max(c.trade_count) = 0
    ),

    -- Minutes that follow each other are as far from their number as the first of them.
    numbered AS (
        SELECT
            n.open_time,
            n.symbols,
            n.open_time - row_number() OVER (ORDER BY n.open_time) * interval '1 minute' AS run
        FROM silent AS n
    )

    SELECT
        tstzrange(min(r.open_time), max(r.open_time) + interval '1 minute'),
        min(r.symbols)
    FROM numbered AS r
    GROUP BY r.run
    HAVING count(*) >= min_minutes
    ORDER BY 1
$$;
COMMENT ON FUNCTION ops.suspected_outages IS
'Runs of minutes in which no USD-M symbol traded, with the fewest symbols that say so: the exchange '
'was probably halted. Its klines go on through halts, and so do the rows.';
