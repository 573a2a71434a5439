SELECT
    c.symbol,
    c.open_time,
    c.open,
    c.high,
    c.low,
    c.close,
    c.volume,
    c.quote_volume,
    c.trade_count,
    c.taker_buy_volume,
    c.taker_buy_quote_volume,
    c.first_trade_id,
    c.last_trade_id,
    c.status,
    c.source,
    c.revision,
    c.updated_at
FROM market.candles_1m AS c
UNION ALL
SELECT
    l.symbol,
    l.open_time,
    l.open,
    l.high,
    l.low,
    l.close,
    l.volume,
    l.quote_volume,
    l.trade_count,
    l.taker_buy_volume,
    l.taker_buy_quote_volume,
    l.first_trade_id,
    l.last_trade_id,
    CASE WHEN l.is_closed THEN 'closed' ELSE 'live' END COLLATE "C" AS status,
    'stream'::text COLLATE "C" AS source,
    0 AS revision,
    l.updated_at
FROM market.live_candles_of(NULL) AS l
WHERE NOT EXISTS (
    SELECT FROM market.candles_1m AS c
    WHERE c.symbol = l.symbol AND c.open_time = l.open_time
)
