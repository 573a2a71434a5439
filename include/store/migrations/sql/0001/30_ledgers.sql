-- Schema ops: what was read, missed, compared and found. Ledgers are sets, so repeats add nothing.

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
    believed tstzmultirange NOT NULL DEFAULT '{}',
    CONSTRAINT discrepancies_each_loser_once UNIQUE (
        symbol, open_time, loser_source, loser_status, loser_open, loser_high, loser_low,
        loser_close, loser_volume, loser_quote_volume, loser_trade_count,
        loser_taker_buy_volume, loser_taker_buy_quote_volume
    )
);
CREATE INDEX discrepancies_found_at ON ops.discrepancies (found_at);
COMMENT ON TABLE ops.discrepancies IS
'One row per offer whose nine values lost a minute to other values.';
COMMENT ON COLUMN ops.discrepancies.believed IS
'While the losing values stood in candles_1m under this source; empty if they lost on arrival.';

CREATE TABLE ops.candle_changes (
    changed_by xid8 NOT NULL DEFAULT pg_current_xact_id(),
    symbol text COLLATE "C" NOT NULL,
    minutes tstzmultirange NOT NULL
);
CREATE INDEX candle_changes_changed_by ON ops.candle_changes (changed_by);
COMMENT ON TABLE ops.candle_changes IS
'The work list of the marts: which minutes a transaction changed. Read with changed_by >= pg_snapshot_xmin(old) AND NOT pg_visible_in_snapshot(changed_by, old).';

CREATE TABLE ops.build_cursors (
    relation text COLLATE "C" NOT NULL,
    target text COLLATE "C" NOT NULL,
    system_identifier text COLLATE "C" NOT NULL,
    snapshot pg_snapshot NOT NULL,
    built_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (relation, target)
);
COMMENT ON TABLE ops.build_cursors IS
'Up to which snapshot each mart has seen ops.candle_changes; void on another cluster.';

CREATE TABLE ops.outages (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    market text COLLATE "C" NOT NULL CHECK (market IN ('spot', 'um')),
    symbol text COLLATE "C",
    minutes tstzmultirange NOT NULL CHECK (NOT isempty(minutes)),
    cause text NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT outages_market_fits_the_symbol CHECK (market = market.market_of(symbol)),
    CONSTRAINT outages_each_cause_once UNIQUE NULLS NOT DISTINCT (market, symbol, cause)
);
COMMENT ON TABLE ops.outages IS
'Minutes without rows because the exchange did not trade; symbol null: the whole market. One row per market, symbol and cause, its minutes a set.';

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
    CONSTRAINT gaps_have_a_length CHECK (from_time < to_time)
);
CREATE UNIQUE INDEX gaps_each_open_once ON ops.gaps (symbol, from_time, to_time)
WHERE repaired_at IS NULL;
CREATE INDEX gaps_opened_at ON ops.gaps (opened_at);
COMMENT ON TABLE ops.gaps IS
'Minutes from from_time up to but without to_time that were missed, why, and when they were repaired.';

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
COMMENT ON TABLE ops.dump_files IS
'One row per published state of a dump file; a re-issued file has another checksum and its own row.';

CREATE TABLE ops.rejected_rows (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    file text COLLATE "C" NOT NULL,
    line bigint NOT NULL CHECK (line > 0),
    reason text NOT NULL,
    raw text NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE UNIQUE INDEX rejected_rows_each_once ON ops.rejected_rows (file, line, md5(reason), md5(raw));
COMMENT ON TABLE ops.rejected_rows IS 'Rows of files that could not be used, with file, line (from 1) and reason.';

CREATE TABLE ops.quality_results (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id text COLLATE "C" NOT NULL,
    run_at timestamptz NOT NULL,
    check_name text COLLATE "C" NOT NULL,
    symbol text COLLATE "C",
    success boolean NOT NULL,
    severity text COLLATE "C" NOT NULL DEFAULT 'error',
    observed jsonb NOT NULL DEFAULT '{}',
    failing_rows jsonb NOT NULL DEFAULT '[]',
    CONSTRAINT quality_results_each_once UNIQUE NULLS NOT DISTINCT (run_id, check_name, symbol)
);
CREATE INDEX quality_results_run_at ON ops.quality_results (run_at);
COMMENT ON TABLE ops.quality_results IS 'One row per run, check and symbol (null: over all symbols).';

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
COMMENT ON TABLE ops.coverage IS
'Which minutes of a UTC day each source has spoken about; a set, whose union is idempotent.';

CREATE VIEW ops.verdicts AS
WITH differing AS (
    SELECT
        d.symbol,
        d.loser_source AS source,
        (d.open_time AT TIME ZONE 'UTC')::date AS day,
        count(DISTINCT d.open_time) AS minutes
    FROM ops.discrepancies AS d
    INNER JOIN market.candles_1m AS c ON d.symbol = c.symbol AND d.open_time = c.open_time
    -- values that lost once and won later are no longer in dispute
    WHERE (
        d.loser_open, d.loser_high, d.loser_low, d.loser_close, d.loser_volume,
        d.loser_quote_volume, d.loser_trade_count, d.loser_taker_buy_volume,
        d.loser_taker_buy_quote_volume
    ) <> (
        c.open, c.high, c.low, c.close, c.volume,
        c.quote_volume, c.trade_count, c.taker_buy_volume,
        c.taker_buy_quote_volume
    )
    GROUP BY 1, 2, 3
),

covered AS (
    SELECT
        v.symbol,
        v.source,
        v.day,
        sum(extract(epoch FROM upper(m.span) - lower(m.span)) / 60)::bigint AS minutes
    FROM ops.coverage AS v
    CROSS JOIN LATERAL unnest(v.minutes) AS m (span)
    GROUP BY 1, 2, 3
)

SELECT
    coalesce(v.symbol, d.symbol) AS symbol,
    coalesce(v.day, d.day) AS day,
    coalesce(v.source, d.source) AS source,
    coalesce(v.minutes, 0) AS covered_minutes,
    coalesce(d.minutes, 0) AS differing_minutes,
    CASE
        WHEN d.minutes > 0 THEN 'differs'
        WHEN v.minutes >= 1440 THEN 'agrees'
        ELSE 'agrees_so_far'
    END AS verdict
FROM covered AS v
FULL JOIN differing AS d ON v.symbol = d.symbol AND v.source = d.source AND v.day = d.day;
COMMENT ON VIEW ops.verdicts IS
'One row per symbol, UTC day and source: how many minutes it spoke about and in how many it differs from the stored rows.';

CREATE FUNCTION ops.system_identifier() RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ SELECT system_identifier::text FROM pg_control_system() $$;
COMMENT ON FUNCTION ops.system_identifier() IS
'Identifies the cluster: transaction ids and snapshots mean nothing on another one.';
