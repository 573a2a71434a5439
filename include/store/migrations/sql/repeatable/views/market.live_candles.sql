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
    l.is_closed,
    l.event_time,
    l.updated_at
FROM market.live_candles_of(NULL) AS l
