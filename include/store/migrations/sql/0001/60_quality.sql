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
    suite text COLLATE "C" NOT NULL DEFAULT 'candles',
    failing_count bigint NOT NULL DEFAULT 0 CHECK (failing_count >= 0),
    CONSTRAINT quality_results_severity_is_known CHECK (severity IN ('error', 'warning')),
    CONSTRAINT quality_results_one_per_rule UNIQUE NULLS NOT DISTINCT (run_id, check_name, symbol)
);
CREATE INDEX quality_results_run_at ON ops.quality_results (run_at);

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
