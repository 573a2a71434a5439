-- Optional raw capture, partitioned by UTC day. The day is a column of its own, since the key of
-- a partitioned table must hold the partitioning column.

CREATE TABLE market.agg_trades (
    symbol text COLLATE "C" NOT NULL,
    day date NOT NULL,
    agg_trade_id bigint NOT NULL,
    price numeric NOT NULL CHECK (price > 0 AND price < 'Infinity'),
    quantity numeric NOT NULL CHECK (quantity > 0 AND quantity < 'Infinity'),
    first_trade_id bigint NOT NULL,
    last_trade_id bigint NOT NULL,
    trade_time timestamptz NOT NULL,
    is_buyer_maker boolean NOT NULL,
    PRIMARY KEY (symbol, day, agg_trade_id),
    CONSTRAINT agg_trades_day_is_that_of_the_trade
    CHECK (day = (trade_time AT TIME ZONE 'UTC')::date),
    CONSTRAINT agg_trades_ids_ascend CHECK (first_trade_id <= last_trade_id)
) PARTITION BY RANGE (day);
COMMENT ON TABLE market.agg_trades IS
'One row per aggregate trade: fills of one taker order at one price.';

CREATE TABLE market.trades (
    symbol text COLLATE "C" NOT NULL,
    day date NOT NULL,
    trade_id bigint NOT NULL,
    price numeric NOT NULL CHECK (price > 0 AND price < 'Infinity'),
    quantity numeric NOT NULL CHECK (quantity > 0 AND quantity < 'Infinity'),
    quote_quantity numeric CHECK (quote_quantity >= 0 AND quote_quantity < 'Infinity'),
    trade_time timestamptz NOT NULL,
    is_buyer_maker boolean NOT NULL,
    PRIMARY KEY (symbol, day, trade_id),
    CONSTRAINT trades_day_is_that_of_the_trade
    CHECK (day = (trade_time AT TIME ZONE 'UTC')::date)
) PARTITION BY RANGE (day);
COMMENT ON TABLE market.trades IS
'One row per trade; quote_quantity is the exchange''s own (rounded) amount where it tells it.';

CREATE TABLE market.book_tickers (
    symbol text COLLATE "C" NOT NULL,
    day date NOT NULL,
    update_id bigint NOT NULL,
    bid_price numeric NOT NULL,
    bid_quantity numeric NOT NULL,
    ask_price numeric NOT NULL,
    ask_quantity numeric NOT NULL,
    event_time timestamptz,
    received_at timestamptz NOT NULL,
    PRIMARY KEY (symbol, day, update_id),
    CONSTRAINT book_tickers_day_is_that_of_the_event
    CHECK (day = (coalesce(event_time, received_at) AT TIME ZONE 'UTC')::date)
) PARTITION BY RANGE (day);
COMMENT ON TABLE market.book_tickers IS
'One row per change of the best bid and ask; spot frames carry no time, hence received_at.';
