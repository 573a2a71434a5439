-- Spot has no klines during a halt, so its halts show as missing minutes. USD-M has empty klines,
-- which are stored: only simultaneous silence of all symbols shows a halt.
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

    -- In a run of consecutive minutes, open_time minus row number is constant.
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
'Runs of at least min_minutes in which none of at least min_symbols stored USD-M symbols traded, probably halts of the exchange. symbols: the lowest number of symbols in a minute of the run.';
