-- Minutes from files of others that lack values which every row of market.candles_1m has. They take
-- no part in the merge, so they can never stand in for a row of the exchange.
CREATE TABLE market.foreign_candles_1m (
    symbol text COLLATE "C" NOT NULL,
    open_time timestamptz NOT NULL,
    file text COLLATE "C" NOT NULL,
    open numeric NOT NULL,
    high numeric NOT NULL,
    low numeric NOT NULL,
    close numeric NOT NULL,
    volume numeric,
    quote_volume numeric,
    trade_count bigint,
    taker_buy_volume numeric,
    taker_buy_quote_volume numeric,
    imported_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (symbol, open_time, file),
    CONSTRAINT foreign_candles_1m_open_time_is_a_full_minute
    CHECK (date_bin('1 minute', open_time, '2001-01-01 00:00:00+00') = open_time),
    CONSTRAINT foreign_candles_1m_high_is_the_highest
    CHECK (high >= greatest(open, close, low) AND high < 'Infinity'),
    CONSTRAINT foreign_candles_1m_low_is_the_lowest
    CHECK (low <= least(open, close) AND low > 0),
    -- An unknown value passes every comparison.
    CONSTRAINT foreign_candles_1m_volumes_are_amounts
    CHECK (
        volume >= 0 AND volume < 'Infinity'
        AND quote_volume >= 0 AND quote_volume < 'Infinity'
        AND taker_buy_volume >= 0 AND taker_buy_volume <= coalesce(volume, taker_buy_volume)
        AND taker_buy_quote_volume >= 0
        AND taker_buy_quote_volume <= coalesce(quote_volume, taker_buy_quote_volume)
        AND trade_count >= 0
    ),
    CONSTRAINT foreign_candles_1m_lacks_a_value
    CHECK (
        num_nulls(volume, quote_volume, trade_count, taker_buy_volume, taker_buy_quote_volume) > 0
    )
);
