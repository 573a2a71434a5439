-- Derivative series. One merge, ops.merge_series(), serves all tables; ops.series declares what it has
-- to know of each. include/domain/series/kinds.py is the same declaration in Python; a test compares.

CREATE TABLE ops.series (
    series text COLLATE "C" PRIMARY KEY,
    relation text COLLATE "C" NOT NULL UNIQUE,
    time_column text COLLATE "C" NOT NULL,
    step interval,
    value_columns text [] NOT NULL,
    value_units numeric [] NOT NULL,
    carried_columns text [] NOT NULL DEFAULT '{}',
    filled_columns text [] NOT NULL DEFAULT '{}',
    sources text [] NOT NULL,
    CONSTRAINT series_has_a_unit_for_each_value
    CHECK (cardinality(value_columns) = cardinality(value_units))
);

INSERT INTO ops.series (
    series, relation, time_column, step, value_columns, value_units,
    carried_columns, filled_columns, sources
) VALUES
(
    'funding', 'funding_rates', 'settles_at', NULL, '{funding_rate}', '{0}',
    '{funding_time}', '{mark_price,interval_hours}', '{stream,dump_monthly,dump_daily,rest}'
),
(
    'mark', 'mark_prices_1m', 'open_time', '1 minute', '{open,high,low,close}', '{0,0,0,0}',
    '{}', '{}', '{stream,dump_monthly,dump_daily,rest}'
),
(
    'index', 'index_prices_1m', 'open_time', '1 minute', '{open,high,low,close}', '{0,0,0,0}',
    '{}', '{}', '{stream,dump_monthly,dump_daily,rest}'
),
(
    'premium', 'premium_index_1m', 'open_time', '1 minute', '{open,high,low,close}', '{0,0,0,0}',
    '{}', '{}', '{stream,dump_monthly,dump_daily,rest}'
),
-- Files print more digits of these two than REST, so a file outranks REST.
(
    'open_interest', 'open_interest_5m', 'time', '5 minutes',
    '{open_interest,open_interest_value}', '{0.00000001,0.00000001}',
    '{}', '{}', '{stream,rest,dump_monthly,dump_daily}'
),
(
    'ratios', 'trader_ratios_5m', 'time', '5 minutes',
    '{top_trader_account_ratio,top_trader_position_ratio,account_ratio,taker_volume_ratio}',
    '{0.0001,0.0001,0.0001,0.0001}',
    '{}', '{}', '{stream,rest,dump_monthly,dump_daily}'
);

CREATE TABLE market.funding_rates (
    symbol text COLLATE "C" NOT NULL,
    settles_at timestamptz NOT NULL,
    funding_rate numeric NOT NULL,
    funding_time timestamptz NOT NULL,
    mark_price numeric,
    interval_hours smallint,
    status text COLLATE "C" NOT NULL,
    source text COLLATE "C" NOT NULL,
    evidence_at timestamptz NOT NULL,
    revision integer NOT NULL DEFAULT 0,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (symbol, settles_at),
    CONSTRAINT funding_rates_settle_at_whole_hours
    CHECK (date_bin('1 hour', settles_at, '2001-01-01 00:00:00+00') = settles_at),
    CONSTRAINT funding_rates_are_settled_in_their_second
    CHECK (funding_time BETWEEN settles_at - interval '1 second' AND settles_at + interval '1 second'),
    CONSTRAINT funding_rates_are_rates CHECK (abs(funding_rate) < 1),
    CONSTRAINT funding_rates_mark_price_is_a_price
    CHECK (mark_price > 0 AND mark_price < 'Infinity'),
    CONSTRAINT funding_rates_interval_is_within_a_day CHECK (interval_hours BETWEEN 1 AND 24),
    CONSTRAINT funding_rates_are_of_the_exchange
    CHECK (source IN ('rest', 'dump_daily', 'dump_monthly') AND status = 'verified')
);

CREATE TABLE market.premium_index_1m (
    symbol text COLLATE "C" NOT NULL,
    open_time timestamptz NOT NULL,
    open numeric NOT NULL,
    high numeric NOT NULL,
    low numeric NOT NULL,
    close numeric NOT NULL,
    status text COLLATE "C" NOT NULL,
    source text COLLATE "C" NOT NULL,
    evidence_at timestamptz NOT NULL,
    revision integer NOT NULL DEFAULT 0,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (symbol, open_time),
    CONSTRAINT open_time_is_a_full_minute
    CHECK (date_bin('1 minute', open_time, '2001-01-01 00:00:00+00') = open_time),
    CONSTRAINT high_is_the_highest
    CHECK (high >= greatest(open, close, low) AND high < 'Infinity'),
    CONSTRAINT low_is_the_lowest CHECK (low <= least(open, close) AND low > '-Infinity'),
    CONSTRAINT source_and_status_fit CHECK (
        CASE WHEN source = 'stream' THEN status IN ('unconfirmed', 'partial')
            ELSE source IN ('rest', 'dump_daily', 'dump_monthly') AND status = 'verified'
        END
    )
) PARTITION BY RANGE (open_time);

CREATE TABLE market.mark_prices_1m (
    LIKE market.premium_index_1m INCLUDING ALL,
    CONSTRAINT price_is_positive CHECK (low > 0)
) PARTITION BY RANGE (open_time);

CREATE TABLE market.index_prices_1m (
    LIKE market.mark_prices_1m INCLUDING ALL
) PARTITION BY RANGE (open_time);

CREATE TABLE market.open_interest_5m (
    symbol text COLLATE "C" NOT NULL,
    "time" timestamptz NOT NULL,
    open_interest numeric NOT NULL,
    open_interest_value numeric,
    status text COLLATE "C" NOT NULL,
    source text COLLATE "C" NOT NULL,
    evidence_at timestamptz NOT NULL,
    revision integer NOT NULL DEFAULT 0,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (symbol, "time"),
    CONSTRAINT time_is_a_multiple_of_five_minutes
    CHECK (date_bin('5 minutes', "time", '2001-01-01 00:00:00+00') = "time"),
    CONSTRAINT open_interest_is_an_amount CHECK (
        open_interest >= 0 AND open_interest < 'Infinity'
        AND open_interest_value >= 0 AND open_interest_value < 'Infinity'
    ),
    CONSTRAINT source_is_of_the_exchange CHECK (source IN ('rest', 'dump_daily', 'dump_monthly')),
    CONSTRAINT partial_means_a_cell_is_empty
    CHECK (status = CASE WHEN open_interest_value IS NULL THEN 'partial' ELSE 'verified' END)
);

CREATE TABLE market.trader_ratios_5m (
    symbol text COLLATE "C" NOT NULL,
    "time" timestamptz NOT NULL,
    top_trader_account_ratio numeric,
    top_trader_position_ratio numeric,
    account_ratio numeric,
    taker_volume_ratio numeric,
    status text COLLATE "C" NOT NULL,
    source text COLLATE "C" NOT NULL,
    evidence_at timestamptz NOT NULL,
    revision integer NOT NULL DEFAULT 0,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (symbol, "time"),
    CONSTRAINT time_is_a_multiple_of_five_minutes
    CHECK (date_bin('5 minutes', "time", '2001-01-01 00:00:00+00') = "time"),
    CONSTRAINT ratios_are_not_negative CHECK (
        top_trader_account_ratio >= 0 AND top_trader_account_ratio < 'Infinity'
        AND top_trader_position_ratio >= 0 AND top_trader_position_ratio < 'Infinity'
        AND account_ratio >= 0 AND account_ratio < 'Infinity'
        AND taker_volume_ratio >= 0 AND taker_volume_ratio < 'Infinity'
    ),
    CONSTRAINT source_is_of_the_exchange CHECK (source IN ('rest', 'dump_daily', 'dump_monthly')),
    CONSTRAINT partial_means_a_cell_is_empty CHECK (
        status = CASE
            WHEN
                num_nulls(
                    top_trader_account_ratio, top_trader_position_ratio, account_ratio,
                    taker_volume_ratio
                ) > 0
                THEN 'partial'
            ELSE 'verified'
        END
    )
);

CREATE TABLE ops.series_coverage (
    series text COLLATE "C" NOT NULL REFERENCES ops.series,
    symbol text COLLATE "C" NOT NULL,
    source text COLLATE "C" NOT NULL,
    times tstzmultirange NOT NULL,
    PRIMARY KEY (series, symbol, source)
);

CREATE TABLE ops.series_discrepancies (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    series text COLLATE "C" NOT NULL REFERENCES ops.series,
    symbol text COLLATE "C" NOT NULL,
    "time" timestamptz NOT NULL,
    found_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    loser_source text COLLATE "C" NOT NULL,
    loser_status text COLLATE "C" NOT NULL,
    loser_evidence_at timestamptz NOT NULL,
    loser_values jsonb NOT NULL,
    CONSTRAINT series_discrepancies_one_row_per_loser UNIQUE (series, symbol, "time", loser_values)
);
