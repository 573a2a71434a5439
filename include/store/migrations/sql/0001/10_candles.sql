-- Symbols have collation "C": byte order is fast, equals Python's order, and a locale upgrade of the
-- operating system cannot corrupt an index.

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
    -- NaN and Infinity sort above every number, so these bounds exclude them.
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
            ELSE source IN ('stream', 'trades', 'file', 'foreign') AND status IN ('unconfirmed', 'partial')
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
            WHEN source = 'trades' THEN 30
            WHEN source = 'file' THEN 20
            WHEN source = 'foreign' THEN 5
        END
    )
) PARTITION BY RANGE (open_time);

SELECT ops.log_changes_of('market.candles_1m');

-- Template: writers create the temporary table "candidates" like it, fill it with COPY and call
-- ops.merge_candidates().
CREATE TABLE ops.candle_candidates (
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

-- Open candles, read as market.live_candles. They are in one of several equal tables: a row that was
-- replaced stays while any snapshot might see it, so a long transaction would make one table grow and
-- slow down. ops.rotate_live_candles() copies the few current rows to another table.
-- Unlogged: logged, the open candles of 1,500 symbols cost about 100 GB of WAL a day. Quote
-- volumes are null where the exchange rounds fills: trades do not show the rounding.
CREATE UNLOGGED TABLE ops.live_candles_1 (
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
) WITH (fillfactor = 10, autovacuum_vacuum_cost_delay = 0);

CREATE TABLE ops.live_candle_table (
    number integer NOT NULL,
    next_number integer,
    copied_bytes bigint NOT NULL DEFAULT 0,
    copied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE UNIQUE INDEX live_candle_table_has_one_row ON ops.live_candle_table ((true));
INSERT INTO ops.live_candle_table (number) VALUES (1);

CREATE TABLE ops.discrepancies (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    symbol text COLLATE "C" NOT NULL,
    open_time timestamptz NOT NULL,
    found_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    winner_source text COLLATE "C" NOT NULL,
    winner_status text COLLATE "C" NOT NULL,
    winner_evidence_at timestamptz,
    loser_source text COLLATE "C" NOT NULL,
    loser_status text COLLATE "C" NOT NULL,
    loser_evidence_at timestamptz,
    loser_open numeric NOT NULL,
    loser_high numeric NOT NULL,
    loser_low numeric NOT NULL,
    loser_close numeric NOT NULL,
    loser_volume numeric NOT NULL,
    loser_quote_volume numeric NOT NULL,
    loser_trade_count bigint NOT NULL,
    loser_taker_buy_volume numeric NOT NULL,
    loser_taker_buy_quote_volume numeric NOT NULL,
    loser_first_trade_id bigint,
    loser_last_trade_id bigint,
    stored_during tstzmultirange NOT NULL DEFAULT '{}',
    CONSTRAINT discrepancies_one_row_per_loser UNIQUE (
        symbol, open_time, loser_source, loser_status, loser_open, loser_high, loser_low,
        loser_close, loser_volume, loser_quote_volume, loser_trade_count,
        loser_taker_buy_volume, loser_taker_buy_quote_volume
    )
);
CREATE INDEX discrepancies_found_at ON ops.discrepancies (found_at);

CREATE TABLE ops.coverage (
    symbol text COLLATE "C" NOT NULL,
    source text COLLATE "C" NOT NULL,
    day date NOT NULL,
    minutes tstzmultirange NOT NULL,
    PRIMARY KEY (symbol, source, day),
    CONSTRAINT coverage_stays_within_its_day CHECK (
        minutes <@ tstzmultirange(tstzrange(
            day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC'
        ))
    )
);
