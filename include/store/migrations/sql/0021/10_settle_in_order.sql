-- In the order in which open candles are written, as the merge locks in that of settled ones: two
-- streamers of the same symbols would lock each other out at a minute's end.
CREATE OR REPLACE FUNCTION ops.settle_candles(
    symbols text [], open_times timestamptz [],
    opens numeric [], highs numeric [], lows numeric [], closes numeric [],
    volumes numeric [], quote_volumes numeric [], trade_counts bigint [],
    taker_buy_volumes numeric [], taker_buy_quote_volumes numeric [],
    first_trade_ids bigint [], last_trade_ids bigint [],
    statuses text [], sources text [], source_ranks smallint [], evidence_times timestamptz []
)
RETURNS TABLE (
    offered bigint, inserted bigint, changed bigint,
    confirmed bigint, unchanged bigint, discrepancies bigint
)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET client_min_messages = warning
SET jit = off
AS $$
BEGIN
    CREATE TEMPORARY TABLE IF NOT EXISTS offered (LIKE ops.offered_candles) ON COMMIT DELETE ROWS;
    DELETE FROM pg_temp.offered; -- of an earlier merge in the caller's transaction
    INSERT INTO pg_temp.offered (
        symbol, open_time, open, high, low, close, volume, quote_volume, trade_count,
        taker_buy_volume, taker_buy_quote_volume, first_trade_id, last_trade_id,
        status, source, source_rank, evidence_at
    )
    SELECT r.* FROM unnest(
        symbols, open_times, opens, highs, lows, closes, volumes, quote_volumes, trade_counts,
        taker_buy_volumes, taker_buy_quote_volumes, first_trade_ids, last_trade_ids,
        statuses, sources, source_ranks, evidence_times
    ) AS r;
    RETURN QUERY SELECT * FROM ops.merge_offered();
    PERFORM FROM market.live_candles AS l
    INNER JOIN unnest(symbols, open_times) AS k (symbol, open_time)
        ON l.symbol = k.symbol AND l.open_time = k.open_time
    ORDER BY l.symbol COLLATE "C", l.open_time
    FOR UPDATE OF l;
    DELETE FROM market.live_candles AS l
    USING unnest(symbols, open_times) AS k (symbol, open_time)
    WHERE l.symbol = k.symbol AND l.open_time = k.open_time;
END
$$;
