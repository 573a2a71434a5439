-- Order books: diffs as the exchange streams them, and snapshots from which a book is rebuilt. Each
-- side is a pair of parallel arrays, so that a diff is one row; unnest() reads both together.

CREATE TABLE market.depth_diffs (
    symbol text COLLATE "C" NOT NULL,
    day date NOT NULL,
    last_update_id bigint NOT NULL,
    first_update_id bigint NOT NULL,
    previous_update_id bigint,
    event_time timestamptz NOT NULL,
    transaction_time timestamptz,
    received_at timestamptz NOT NULL,
    bid_prices numeric[] NOT NULL,
    bid_quantities numeric[] NOT NULL,
    ask_prices numeric[] NOT NULL,
    ask_quantities numeric[] NOT NULL,
    PRIMARY KEY (symbol, day, last_update_id),
    CONSTRAINT depth_diffs_day_fits_the_event_time
    CHECK (day = (event_time AT TIME ZONE 'UTC')::date),
    CONSTRAINT depth_diffs_ids_ascend
    CHECK (coalesce(previous_update_id, -1) < first_update_id AND first_update_id <= last_update_id),
    CONSTRAINT depth_diffs_have_a_quantity_for_each_price CHECK (
        cardinality(bid_prices) = cardinality(bid_quantities)
        AND cardinality(ask_prices) = cardinality(ask_quantities)
    )
) PARTITION BY RANGE (day);

CREATE TABLE market.depth_snapshots (
    symbol text COLLATE "C" NOT NULL,
    day date NOT NULL,
    last_update_id bigint NOT NULL,
    source text COLLATE "C" NOT NULL CHECK (source IN ('rest', 'checkpoint')),
    at_time timestamptz NOT NULL,
    bid_prices numeric[] NOT NULL,
    bid_quantities numeric[] NOT NULL,
    ask_prices numeric[] NOT NULL,
    ask_quantities numeric[] NOT NULL,
    bid_reach numeric,
    ask_reach numeric,
    PRIMARY KEY (symbol, day, last_update_id),
    CONSTRAINT depth_snapshots_day_fits_the_time
    CHECK (day = (at_time AT TIME ZONE 'UTC')::date),
    CONSTRAINT depth_snapshots_have_a_quantity_for_each_price CHECK (
        cardinality(bid_prices) = cardinality(bid_quantities)
        AND cardinality(ask_prices) = cardinality(ask_quantities)
    )
) PARTITION BY RANGE (day);
CREATE INDEX depth_snapshots_at ON market.depth_snapshots (symbol, at_time);

ALTER TABLE ops.archived_partitions DROP CONSTRAINT archived_partitions_dataset_check;
ALTER TABLE ops.archived_partitions ADD CONSTRAINT archived_partitions_dataset_check CHECK (
    dataset IN (
        'agg_trades', 'trades', 'book_tickers', 'liquidations', 'depth_diffs', 'depth_snapshots'
    )
);
ALTER TABLE ops.gaps DROP CONSTRAINT gaps_dataset_is_known;
ALTER TABLE ops.gaps ADD CONSTRAINT gaps_dataset_is_known CHECK (
    dataset IN (
        'candles_1m', 'agg_trades', 'trades', 'book_tickers', 'liquidations', 'depth_diffs',
        'depth_snapshots'
    )
);
