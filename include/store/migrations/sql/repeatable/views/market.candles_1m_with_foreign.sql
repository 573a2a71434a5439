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
    c.status,
    c.source,
    NULL::text COLLATE "C" AS file
FROM market.candles_1m AS c
UNION ALL
SELECT
    f.symbol,
    f.open_time,
    f.open,
    f.high,
    f.low,
    f.close,
    f.volume,
    f.quote_volume,
    f.trade_count,
    f.taker_buy_volume,
    f.taker_buy_quote_volume,
    'unverified'::text COLLATE "C" AS status,
    'foreign'::text COLLATE "C" AS source,
    f.file
FROM market.foreign_candles_1m AS f
WHERE
    NOT EXISTS (
        SELECT FROM market.candles_1m AS c
        WHERE c.symbol = f.symbol AND c.open_time = f.open_time
    )
    -- Of several files the one that lacks fewest values, then the first by name, then the one
    -- imported last.
    AND NOT EXISTS (
        SELECT FROM market.foreign_candles_1m AS o
        WHERE
            o.symbol = f.symbol AND o.open_time = f.open_time
            AND (
                num_nulls(
                    o.volume, o.quote_volume, o.trade_count, o.taker_buy_volume,
                    o.taker_buy_quote_volume
                ),
                o.file,
                f.imported_at,
                o.origin
            ) < (
                num_nulls(
                    f.volume, f.quote_volume, f.trade_count, f.taker_buy_volume,
                    f.taker_buy_quote_volume
                ),
                f.file,
                o.imported_at,
                f.origin
            )
    )
