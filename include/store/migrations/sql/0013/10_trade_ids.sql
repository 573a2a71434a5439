-- Bars hold the ids of their first and last trades: a minute that is told its ids late has changed,
-- although no value has. What changed in status alone still goes to ops.status_changes.
CREATE OR REPLACE FUNCTION ops.log_updated_candles() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_hashjoin = on
AS $$
BEGIN
    WITH compared AS MATERIALIZED (
        SELECT
            coalesce(o.symbol, n.symbol) AS symbol,
            coalesce(o.open_time, n.open_time) AS open_time,
            (
                o.open, o.high, o.low, o.close, o.volume, o.quote_volume, o.trade_count,
                o.taker_buy_volume, o.taker_buy_quote_volume, o.first_trade_id, o.last_trade_id
            ) IS DISTINCT FROM (
                n.open, n.high, n.low, n.close, n.volume, n.quote_volume, n.trade_count,
                n.taker_buy_volume, n.taker_buy_quote_volume, n.first_trade_id, n.last_trade_id
            ) AS is_another_bar
        FROM old_rows AS o
        FULL JOIN new_rows AS n ON o.symbol = n.symbol AND o.open_time = n.open_time
        WHERE
            o.status IS DISTINCT FROM n.status
            OR (
                o.open, o.high, o.low, o.close, o.volume, o.quote_volume, o.trade_count,
                o.taker_buy_volume, o.taker_buy_quote_volume, o.first_trade_id, o.last_trade_id
            ) IS DISTINCT FROM (
                n.open, n.high, n.low, n.close, n.volume, n.quote_volume, n.trade_count,
                n.taker_buy_volume, n.taker_buy_quote_volume, n.first_trade_id, n.last_trade_id
            )
    ),

    changed AS (
        INSERT INTO ops.candle_changes (symbol, minutes)
        SELECT c.symbol, range_agg(tstzrange(c.open_time, c.open_time + interval '1 minute'))
        FROM compared AS c
        WHERE c.is_another_bar
        GROUP BY c.symbol
    )

    INSERT INTO ops.status_changes (symbol, minutes)
    SELECT c.symbol, range_agg(tstzrange(c.open_time, c.open_time + interval '1 minute'))
    FROM compared AS c
    WHERE NOT c.is_another_bar
    GROUP BY c.symbol;
    RETURN NULL;
END
$$;

COMMENT ON TABLE ops.status_changes IS
'Which minutes a transaction gave another status but neither other values nor other trade ids. Read as ops.candle_changes.';
