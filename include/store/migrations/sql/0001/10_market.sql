-- Schema market: what Python writes. Symbols carry collation "C": byte order is fast, is the
-- order Python sorts by, and no upgrade of the operating system's locales can corrupt an index.

CREATE SCHEMA IF NOT EXISTS market;
CREATE SCHEMA IF NOT EXISTS ops;

CREATE FUNCTION market.market_of(symbol text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
AS $$ SELECT CASE WHEN right(symbol, 2) = '.P' THEN 'um' ELSE 'spot' END $$;
COMMENT ON FUNCTION market.market_of(text) IS
'The market of a platform symbol: spot BTCUSDT, USD-M BTCUSDT.P.';

CREATE TABLE market.candles_1m (
    symbol text COLLATE "C" NOT NULL,
    open_time timestamptz NOT NULL,
    open numeric NOT NULL,
    high numeric NOT NULL,
    low numeric NOT NULL,
    close numeric NOT NULL,
    volume numeric NOT NULL,
    quote_volume numeric NOT NULL,
    trade_count bigint NOT NULL,
    taker_buy_volume numeric NOT NULL,
    taker_buy_quote_volume numeric NOT NULL,
    first_trade_id bigint,
    last_trade_id bigint,
    status text COLLATE "C" NOT NULL,
    source text COLLATE "C" NOT NULL,
    source_rank smallint NOT NULL,
    evidence_at timestamptz,
    revision integer NOT NULL DEFAULT 0,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    evidence_last_trade_id bigint,
    PRIMARY KEY (symbol, open_time),
    CONSTRAINT candles_1m_open_time_is_a_full_minute
    CHECK (date_bin('1 minute', open_time, '2001-01-01 00:00:00+00') = open_time),
    -- NaN and Infinity sort above every number, so these bounds keep them out as well.
    CONSTRAINT candles_1m_high_is_the_highest
    CHECK (high >= greatest(open, close, low) AND high < 'Infinity'),
    CONSTRAINT candles_1m_low_is_the_lowest
    CHECK (low <= least(open, close) AND low >= 0),
    CONSTRAINT candles_1m_volumes_are_amounts
    CHECK (
        volume >= 0 AND volume < 'Infinity'
        AND quote_volume >= 0 AND quote_volume < 'Infinity'
        AND taker_buy_volume >= 0 AND taker_buy_volume <= volume
        AND taker_buy_quote_volume >= 0 AND taker_buy_quote_volume <= quote_volume
    ),
    CONSTRAINT candles_1m_no_trades_means_no_volume
    CHECK (
        trade_count >= 0 AND (trade_count = 0) = (volume = 0)
        AND (trade_count > 0 OR quote_volume = 0)
    ),
    CONSTRAINT candles_1m_source_and_status_fit
    CHECK (
        CASE WHEN source IN ('rest', 'dump_daily', 'dump_monthly', 'kline')
            THEN status = 'verified' AND evidence_at IS NOT NULL
            ELSE source IN ('stream', 'folded', 'file') AND status IN ('unconfirmed', 'partial')
        END
    ),
    CONSTRAINT candles_1m_rank_fits_the_source
    CHECK (
        source_rank = CASE
            WHEN status = 'partial' THEN 10
            WHEN source = 'rest' THEN 80
            WHEN source = 'dump_daily' THEN 70
            WHEN source = 'dump_monthly' THEN 60
            WHEN source = 'kline' THEN 50
            WHEN source = 'stream' THEN 40
            WHEN source = 'folded' THEN 30
            WHEN source = 'file' THEN 20
        END
    )
) PARTITION BY RANGE (open_time);
COMMENT ON TABLE market.candles_1m IS
'One row per symbol and minute that the exchange was open: its nine values, and how they are known.';
COMMENT ON COLUMN market.candles_1m.evidence_at IS
'Time of the exchange''s evidence (publication of a file, server time of an answer, event time of a frame); null for folds and files of users.';
COMMENT ON COLUMN market.candles_1m.revision IS
'How often the nine values changed after the row was first written.';
COMMENT ON COLUMN market.candles_1m.updated_at IS
'When the present nine values were written; provenance alone does not move it.';
COMMENT ON COLUMN market.candles_1m.evidence_last_trade_id IS
'For rows from folds: the last trade id of the fold that the row rests on (0: none), which ranks folds. The row''s own ids may come from another offer of the same values.';

-- The shape of an offer: writers create a temporary table "offered" like it, fill it with COPY
-- and call ops.merge_offered(). It stays empty itself.
CREATE TABLE ops.offered_candles (
    symbol text COLLATE "C" NOT NULL,
    open_time timestamptz NOT NULL,
    open numeric NOT NULL,
    high numeric NOT NULL,
    low numeric NOT NULL,
    close numeric NOT NULL,
    volume numeric NOT NULL,
    quote_volume numeric NOT NULL,
    trade_count bigint NOT NULL,
    taker_buy_volume numeric NOT NULL,
    taker_buy_quote_volume numeric NOT NULL,
    first_trade_id bigint,
    last_trade_id bigint,
    status text COLLATE "C" NOT NULL,
    source text COLLATE "C" NOT NULL,
    source_rank smallint NOT NULL,
    evidence_at timestamptz
);
COMMENT ON TABLE ops.offered_candles IS
'The shape of the rows that ops.merge_offered() takes from the temporary table "offered"; always empty.';

-- Unlogged: logged, the open candles of 1,500 symbols cost about 100 GB of WAL a day. Quote
-- volumes are null where the exchange rounds fills, since a fold cannot know them.
CREATE UNLOGGED TABLE market.live_candles (
    symbol text COLLATE "C" NOT NULL,
    open_time timestamptz NOT NULL,
    open numeric NOT NULL,
    high numeric NOT NULL,
    low numeric NOT NULL,
    close numeric NOT NULL,
    volume numeric NOT NULL,
    quote_volume numeric,
    trade_count bigint NOT NULL,
    taker_buy_volume numeric NOT NULL,
    taker_buy_quote_volume numeric,
    first_trade_id bigint,
    last_trade_id bigint,
    is_closed boolean NOT NULL,
    event_time timestamptz,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (symbol, open_time)
) WITH (fillfactor = 50);
COMMENT ON TABLE market.live_candles IS
'The open candle of each symbol, and closed ones that wait for the exchange''s confirmation.';

CREATE VIEW market.candles_1m_live AS
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
FROM market.live_candles AS l
WHERE NOT EXISTS (
    SELECT FROM market.candles_1m AS c
    WHERE c.symbol = l.symbol AND c.open_time = l.open_time
);
COMMENT ON VIEW market.candles_1m_live IS
'candles_1m and the candles not yet in it: status live (open) or closed (waiting for confirmation).';

CREATE TABLE market.instruments (
    symbol text COLLATE "C" NOT NULL,
    listed_from timestamptz NOT NULL,
    listed_to timestamptz,
    market text COLLATE "C" NOT NULL CHECK (market IN ('spot', 'um')),
    exchange_symbol text COLLATE "C" NOT NULL,
    base_asset text COLLATE "C" NOT NULL,
    quote_asset text COLLATE "C" NOT NULL,
    status text COLLATE "C" NOT NULL,
    tick_size numeric NOT NULL CHECK (tick_size > 0),
    step_size numeric NOT NULL CHECK (step_size > 0),
    filters jsonb NOT NULL DEFAULT '{}',
    quote_volume_is_foldable boolean NOT NULL,
    seen_at timestamptz NOT NULL,
    PRIMARY KEY (symbol, listed_from),
    CONSTRAINT instruments_market_fits_the_symbol CHECK (market = market.market_of(symbol)),
    CONSTRAINT instruments_listing_has_a_length CHECK (listed_to > listed_from)
);
CREATE UNIQUE INDEX instruments_one_open_listing ON market.instruments (symbol)
WHERE listed_to IS NULL;
COMMENT ON TABLE market.instruments IS
'One row per listing: a ticker that was delisted and used again has two. Nothing derived crosses a listing.';
COMMENT ON COLUMN market.instruments.listed_from IS
'Start of trading where the exchange tells it, else 1970-01-01 for a symbol found listed and the time it came back for a later listing.';
COMMENT ON COLUMN market.instruments.listed_to IS 'When the exchange no longer showed it; null: listed.';
