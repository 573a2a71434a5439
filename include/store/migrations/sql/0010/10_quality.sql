-- Results of checks by suite, the runs that gave them, and every failing row as a row.

ALTER TABLE ops.quality_results
ADD COLUMN suite text COLLATE "C" NOT NULL DEFAULT 'candles',
ADD COLUMN failing_count bigint NOT NULL DEFAULT 0 CHECK (failing_count >= 0),
ADD CONSTRAINT quality_results_know_their_severity CHECK (severity IN ('error', 'warning'));
UPDATE ops.quality_results
SET failing_count = coalesce((observed ->> 'failing_count')::bigint, 0)
WHERE NOT success;

CREATE TABLE ops.quality_runs (
    run_id text COLLATE "C" PRIMARY KEY,
    run_at timestamptz NOT NULL,
    scope text COLLATE "C" NOT NULL CHECK (scope IN ('changed', 'all', 'window')),
    advances boolean NOT NULL,
    from_time timestamptz,
    to_time timestamptz NOT NULL,
    success boolean NOT NULL,
    symbols integer NOT NULL,
    candles bigint NOT NULL,
    trades bigint NOT NULL,
    took_ms bigint NOT NULL
);
CREATE INDEX quality_runs_run_at ON ops.quality_runs (run_at);

CREATE VIEW ops.quality_failures AS
SELECT
    q.run_id,
    q.run_at,
    q.suite,
    q.check_name,
    q.severity,
    f.row ->> 'symbol' COLLATE "C" AS symbol,
    (f.row ->> 'open_time')::timestamptz AS open_time,
    f.row ->> 'key' COLLATE "C" AS key,
    f.row ->> 'detail' AS detail
FROM ops.quality_results AS q
CROSS JOIN LATERAL jsonb_array_elements(q.failing_rows) AS f (row)
WHERE NOT q.success;

-- Beside the cursors of the marts, so that pruning spares what the checks have not seen either. The
-- jobs may move this one and no other.
CREATE FUNCTION ops.keep_quality_cursor(seen pg_snapshot) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO ops.build_cursors AS c (relation, target, system_identifier, snapshot, built_at)
    VALUES ('quality.candles', 'quality', ops.system_identifier(), seen, clock_timestamp())
    ON CONFLICT (relation, target) DO UPDATE SET
        system_identifier = excluded.system_identifier,
        snapshot = excluded.snapshot,
        built_at = excluded.built_at
$$;
COMMENT ON FUNCTION ops.keep_quality_cursor(pg_snapshot) IS
'Notes up to which snapshot the checks have seen ops.candle_changes.';

COMMENT ON TABLE ops.quality_results IS 'One row per run and rule that was held to.';
COMMENT ON COLUMN ops.quality_results.run_id IS 'The run, of ops.quality_runs: Airflow''s run id, or one of the command line.';
COMMENT ON COLUMN ops.quality_results.run_at IS 'When the results were written.';
COMMENT ON COLUMN ops.quality_results.check_name IS 'The rule; docs/quality.md says what each means and what to do.';
COMMENT ON COLUMN ops.quality_results.symbol IS 'Null: over all symbols. Failing rows carry their own.';
COMMENT ON COLUMN ops.quality_results.success IS 'Whether no row broke the rule.';
COMMENT ON COLUMN ops.quality_results.severity IS 'error: a broken rule fails the run; warning: it is kept and shown.';
COMMENT ON COLUMN ops.quality_results.observed IS 'failing_count, and the rule in words.';
COMMENT ON COLUMN ops.quality_results.failing_rows IS 'The first rows that broke the rule, at most 200, of each symbol one before any second: symbol, open_time, key, detail.';
COMMENT ON COLUMN ops.quality_results.suite IS 'Which rows the rule is about: candles, trades, freshness, instruments, dump_files, gaps, coverage or verdicts.';
COMMENT ON COLUMN ops.quality_results.failing_count IS 'All rows that broke the rule, those beyond failing_rows too.';

COMMENT ON TABLE ops.quality_runs IS 'One row per run of the checks: what it looked at, and how long it took.';
COMMENT ON COLUMN ops.quality_runs.run_id IS 'As in ops.quality_results.';
COMMENT ON COLUMN ops.quality_runs.run_at IS 'When it ended.';
COMMENT ON COLUMN ops.quality_runs.scope IS 'changed: what changed since the last such run; all: every row; window: a span of time.';
COMMENT ON COLUMN ops.quality_runs.advances IS 'Whether the next run of scope changed goes on from here.';
COMMENT ON COLUMN ops.quality_runs.from_time IS 'Start of a window, or end of the run before; null: everything.';
COMMENT ON COLUMN ops.quality_runs.to_time IS 'Moment up to which minutes were looked at, itself not.';
COMMENT ON COLUMN ops.quality_runs.success IS 'Whether every rule of severity error was kept.';
COMMENT ON COLUMN ops.quality_runs.symbols IS 'Symbols whose candles were looked at.';
COMMENT ON COLUMN ops.quality_runs.candles IS 'Rows of market.candles_1m that were looked at, neighbours of changed ones among them.';
COMMENT ON COLUMN ops.quality_runs.trades IS 'Rows of market.agg_trades and market.trades that were looked at.';
COMMENT ON COLUMN ops.quality_runs.took_ms IS 'How long it took, in milliseconds.';

COMMENT ON VIEW ops.quality_failures IS 'One row per row that broke a rule of a run; those beyond the first 200 of a rule are counted in ops.quality_results alone.';
COMMENT ON COLUMN ops.quality_failures.run_id IS 'The run, of ops.quality_runs.';
COMMENT ON COLUMN ops.quality_failures.run_at IS 'When the results were written.';
COMMENT ON COLUMN ops.quality_failures.suite IS 'Which rows the rule is about.';
COMMENT ON COLUMN ops.quality_failures.check_name IS 'The rule that was broken.';
COMMENT ON COLUMN ops.quality_failures.severity IS 'error or warning.';
COMMENT ON COLUMN ops.quality_failures.symbol IS 'Of the row; null where it has none.';
COMMENT ON COLUMN ops.quality_failures.open_time IS 'Open time of the candle, or first missing minute; of other rows the time that names them.';
COMMENT ON COLUMN ops.quality_failures.key IS 'What else names the row: id of a trade or gap, path of a file, source of a coverage.';
COMMENT ON COLUMN ops.quality_failures.detail IS 'What is wrong, in words and figures.';
