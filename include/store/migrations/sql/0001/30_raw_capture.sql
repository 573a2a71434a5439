-- Raw capture (optional), partitioned by UTC day. The key of a partitioned table must contain the
-- partition key, hence the column day.
--
-- By written_by, builds of the trade marts find new rows. A trigger with a transition table
-- would stop COPY into a partitioned table from inserting in batches, at a sixth of the speed. The
-- BRIN index costs almost nothing, because transaction ids ascend. Deletes and updates are rare;
-- triggers log them. txid_current() is pg_current_xact_id() as a bigint, for which BRIN has an
-- operator class.

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
    written_by bigint DEFAULT txid_current(),
    PRIMARY KEY (symbol, day, agg_trade_id),
    CONSTRAINT agg_trades_day_fits_the_trade_time
    CHECK (day = (trade_time AT TIME ZONE 'UTC')::date),
    CONSTRAINT agg_trades_ids_ascend CHECK (first_trade_id <= last_trade_id)
) PARTITION BY RANGE (day);
CREATE INDEX agg_trades_written ON market.agg_trades USING brin (written_by, trade_time)
WITH (pages_per_range = 32, autosummarize = on);

CREATE TABLE market.trades (
    symbol text COLLATE "C" NOT NULL,
    day date NOT NULL,
    trade_id bigint NOT NULL,
    price numeric NOT NULL CHECK (price > 0 AND price < 'Infinity'),
    quantity numeric NOT NULL CHECK (quantity > 0 AND quantity < 'Infinity'),
    quote_quantity numeric CHECK (quote_quantity >= 0 AND quote_quantity < 'Infinity'),
    trade_time timestamptz NOT NULL,
    is_buyer_maker boolean NOT NULL,
    written_by bigint DEFAULT txid_current(),
    PRIMARY KEY (symbol, day, trade_id),
    CONSTRAINT trades_day_fits_the_trade_time
    CHECK (day = (trade_time AT TIME ZONE 'UTC')::date)
) PARTITION BY RANGE (day);
CREATE INDEX trades_written ON market.trades USING brin (written_by, trade_time)
WITH (pages_per_range = 32, autosummarize = on);

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
    CONSTRAINT book_tickers_day_fits_the_event_time
    CHECK (day = (coalesce(event_time, received_at) AT TIME ZONE 'UTC')::date)
) PARTITION BY RANGE (day);

CREATE TRIGGER log_updated AFTER UPDATE ON market.agg_trades
REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
FOR EACH STATEMENT EXECUTE FUNCTION ops.log_trades();

CREATE TRIGGER log_deleted AFTER DELETE ON market.agg_trades
REFERENCING OLD TABLE AS old_rows
FOR EACH STATEMENT EXECUTE FUNCTION ops.log_trades();

CREATE TRIGGER log_truncated BEFORE TRUNCATE ON market.agg_trades
FOR EACH STATEMENT EXECUTE FUNCTION ops.log_trades();

CREATE TRIGGER log_updated AFTER UPDATE ON market.trades
REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
FOR EACH STATEMENT EXECUTE FUNCTION ops.log_trades();

CREATE TRIGGER log_deleted AFTER DELETE ON market.trades
REFERENCING OLD TABLE AS old_rows
FOR EACH STATEMENT EXECUTE FUNCTION ops.log_trades();

CREATE TRIGGER log_truncated BEFORE TRUNCATE ON market.trades
FOR EACH STATEMENT EXECUTE FUNCTION ops.log_trades();

-- While dropped_at is null, the partition contains every row of the file. Afterwards only the file
-- has them; a new partition of that day contains only rows that arrived late.

CREATE TABLE ops.archived_partitions (
    dataset text COLLATE "C" NOT NULL CHECK (dataset IN ('agg_trades', 'trades', 'book_tickers')),
    day date NOT NULL,
    path text COLLATE "C" NOT NULL,
    rows bigint NOT NULL CHECK (rows > 0),
    bytes bigint NOT NULL CHECK (bytes > 0),
    fingerprint numeric NOT NULL,
    content_sha256 text COLLATE "C" NOT NULL CHECK (content_sha256 ~ '^[0-9a-f]{64}$'),
    archived_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    dropped_at timestamptz,
    kept_until timestamptz,
    PRIMARY KEY (dataset, day)
);
