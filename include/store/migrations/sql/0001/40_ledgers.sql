-- Ledgers: each row can be written again without effect.

CREATE TABLE ops.gaps (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    symbol text COLLATE "C" NOT NULL,
    from_time timestamptz NOT NULL,
    to_time timestamptz NOT NULL,
    cause text NOT NULL,
    opened_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    claimed_at timestamptz,
    claimed_by text,
    attempts integer NOT NULL DEFAULT 0,
    repaired_at timestamptz,
    detail jsonb NOT NULL DEFAULT '{}',
    dataset text COLLATE "C" NOT NULL DEFAULT 'candles_1m'
    CONSTRAINT gaps_dataset_is_known CHECK (
        dataset IN ('candles_1m', 'agg_trades', 'trades', 'book_tickers')
    ),
    repaired_by text COLLATE "C",
    CONSTRAINT gaps_have_a_length CHECK (from_time < to_time)
);
CREATE UNIQUE INDEX gaps_one_open_per_range ON ops.gaps (symbol, dataset, from_time, to_time)
WHERE repaired_at IS NULL;
CREATE INDEX gaps_opened_at ON ops.gaps (opened_at);
-- `candelabra status` reads the gaps of a time window, repaired ones included.
CREATE INDEX gaps_to_time ON ops.gaps (to_time);

CREATE TABLE ops.outages (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    market text COLLATE "C" NOT NULL CHECK (market IN ('spot', 'um')),
    symbol text COLLATE "C",
    minutes tstzmultirange NOT NULL CHECK (NOT isempty(minutes)),
    cause text NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT outages_market_fits_the_symbol CHECK (market = market.market_of(symbol)),
    CONSTRAINT outages_one_row_per_cause UNIQUE NULLS NOT DISTINCT (market, symbol, cause)
);

CREATE TRIGGER log_inserted AFTER INSERT ON ops.outages
REFERENCING NEW TABLE AS new_rows
FOR EACH STATEMENT EXECUTE FUNCTION ops.log_outages();

CREATE TRIGGER log_updated AFTER UPDATE ON ops.outages
REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
FOR EACH STATEMENT EXECUTE FUNCTION ops.log_outages();

CREATE TRIGGER log_deleted AFTER DELETE ON ops.outages
REFERENCING OLD TABLE AS old_rows
FOR EACH STATEMENT EXECUTE FUNCTION ops.log_outages();

CREATE TABLE ops.dump_files (
    path text COLLATE "C" NOT NULL,
    checksum text COLLATE "C" NOT NULL,
    symbol text COLLATE "C",
    kind text COLLATE "C" NOT NULL,
    published_at timestamptz,
    fetched_at timestamptz NOT NULL,
    rows bigint NOT NULL CHECK (rows >= 0),
    rejected bigint NOT NULL DEFAULT 0 CHECK (rejected >= 0),
    time_unit text COLLATE "C" CHECK (time_unit IN ('ms', 'us')),
    verdict text COLLATE "C" NOT NULL,
    detail jsonb NOT NULL DEFAULT '{}',
    PRIMARY KEY (path, checksum)
);

CREATE TABLE ops.rejected_rows (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    file text COLLATE "C" NOT NULL,
    line bigint NOT NULL CHECK (line > 0),
    reason text NOT NULL,
    raw text NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE UNIQUE INDEX rejected_rows_one_per_reason ON ops.rejected_rows (file, line, md5(reason), md5(raw));

CREATE TABLE ops.reconciliations (
    symbol text COLLATE "C" NOT NULL,
    day date NOT NULL,
    verdict text COLLATE "C" NOT NULL CHECK (verdict IN ('agrees', 'differs', 'incomplete')),
    is_complete boolean NOT NULL,
    expected_minutes integer NOT NULL,
    stored_minutes integer NOT NULL,
    verified_minutes integer NOT NULL,
    outage_minutes integer NOT NULL,
    revised_minutes integer NOT NULL,
    live_minutes integer NOT NULL,
    live_differing integer NOT NULL,
    rest_minutes integer NOT NULL,
    rest_differing integer NOT NULL,
    daily_minutes integer NOT NULL,
    daily_differing integer NOT NULL,
    monthly_minutes integer NOT NULL,
    monthly_differing integer NOT NULL,
    reconciled_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (symbol, day)
);
CREATE INDEX reconciliations_day ON ops.reconciliations (day);
