-- Which minutes rose in status and kept their values. Bars do not care, hence a log of its own
-- beside ops.candle_changes; how much of a day is verified is counted from both.

CREATE TABLE ops.status_changes (
    changed_by xid8 NOT NULL DEFAULT pg_current_xact_id(),
    symbol text COLLATE "C" NOT NULL,
    minutes tstzmultirange NOT NULL
);
CREATE INDEX status_changes_changed_by ON ops.status_changes (changed_by);
COMMENT ON TABLE ops.status_changes IS
'Which minutes a transaction gave another status but no other values. Read as ops.candle_changes.';
COMMENT ON COLUMN ops.status_changes.changed_by IS 'The transaction.';
COMMENT ON COLUMN ops.status_changes.symbol IS 'Platform symbol.';
COMMENT ON COLUMN ops.status_changes.minutes IS 'The minutes, a set.';

CREATE VIEW ops.coverage_changes AS
SELECT changed_by, symbol, minutes FROM ops.candle_changes
UNION ALL
SELECT changed_by, symbol, minutes FROM ops.status_changes;
COMMENT ON VIEW ops.coverage_changes IS
'Which minutes a transaction changed in values or status, outages included: both logs.';
COMMENT ON COLUMN ops.coverage_changes.changed_by IS 'The transaction.';
COMMENT ON COLUMN ops.coverage_changes.symbol IS 'Platform symbol.';
COMMENT ON COLUMN ops.coverage_changes.minutes IS 'The minutes, a set.';

-- As before; what changed in status alone goes to the log above.
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
                o.taker_buy_volume, o.taker_buy_quote_volume
            ) IS DISTINCT FROM (
                n.open, n.high, n.low, n.close, n.volume, n.quote_volume, n.trade_count,
                n.taker_buy_volume, n.taker_buy_quote_volume
            ) AS has_other_values
        FROM old_rows AS o
        FULL JOIN new_rows AS n ON o.symbol = n.symbol AND o.open_time = n.open_time
        WHERE
            o.status IS DISTINCT FROM n.status
            OR (
                o.open, o.high, o.low, o.close, o.volume, o.quote_volume, o.trade_count,
                o.taker_buy_volume, o.taker_buy_quote_volume
            ) IS DISTINCT FROM (
                n.open, n.high, n.low, n.close, n.volume, n.quote_volume, n.trade_count,
                n.taker_buy_volume, n.taker_buy_quote_volume
            )
    ),

    changed AS (
        INSERT INTO ops.candle_changes (symbol, minutes)
        SELECT c.symbol, range_agg(tstzrange(c.open_time, c.open_time + interval '1 minute'))
        FROM compared AS c
        WHERE c.has_other_values
        GROUP BY c.symbol
    )

    INSERT INTO ops.status_changes (symbol, minutes)
    SELECT c.symbol, range_agg(tstzrange(c.open_time, c.open_time + interval '1 minute'))
    FROM compared AS c
    WHERE NOT c.has_other_values
    GROUP BY c.symbol;
    RETURN NULL;
END
$$;
