-- Liquidations of futures: a sample of at most one a second and symbol. The exchange sends no id;
-- the key is the order time in ms and 21 bits of a hash of the order's other values.

CREATE TABLE market.liquidations (
    symbol text COLLATE "C" NOT NULL,
    day date NOT NULL,
    liquidation_id bigint NOT NULL,
    order_time timestamptz NOT NULL,
    event_time timestamptz NOT NULL,
    received_at timestamptz NOT NULL,
    side text COLLATE "C" NOT NULL CHECK (side IN ('BUY', 'SELL')),
    order_type text COLLATE "C" NOT NULL,
    time_in_force text COLLATE "C" NOT NULL,
    price numeric NOT NULL CHECK (price > 0 AND price < 'Infinity'),
    average_price numeric NOT NULL CHECK (average_price >= 0 AND average_price < 'Infinity'),
    quantity numeric NOT NULL CHECK (quantity > 0 AND quantity < 'Infinity'),
    last_filled_quantity numeric NOT NULL
    CHECK (last_filled_quantity >= 0 AND last_filled_quantity < 'Infinity'),
    accumulated_quantity numeric NOT NULL
    CHECK (accumulated_quantity >= 0 AND accumulated_quantity < 'Infinity'),
    order_status text COLLATE "C" NOT NULL,
    PRIMARY KEY (symbol, day, liquidation_id),
    CONSTRAINT liquidations_day_fits_the_order_time
    CHECK (day = (order_time AT TIME ZONE 'UTC')::date),
    CONSTRAINT liquidations_id_begins_with_the_order_time
    CHECK (
        liquidation_id >> 21
        = floor(extract(epoch FROM order_time AT TIME ZONE 'UTC') * 1000)::bigint
    )
) PARTITION BY RANGE (day);

-- Each dataset of raw capture is named here and in ops.gaps.
ALTER TABLE ops.archived_partitions DROP CONSTRAINT archived_partitions_dataset_check;
ALTER TABLE ops.archived_partitions ADD CONSTRAINT archived_partitions_dataset_check CHECK (
    dataset IN ('agg_trades', 'trades', 'book_tickers', 'liquidations')
);
ALTER TABLE ops.gaps DROP CONSTRAINT gaps_dataset_is_known;
ALTER TABLE ops.gaps ADD CONSTRAINT gaps_dataset_is_known CHECK (
    dataset IN ('candles_1m', 'agg_trades', 'trades', 'book_tickers', 'liquidations')
);
