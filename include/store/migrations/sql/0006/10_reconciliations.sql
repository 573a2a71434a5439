-- What came of comparing a day of a symbol between all who spoke about it. Kept: ops.verdicts
-- shows the present, this is the day's record.

CREATE FUNCTION ops.minutes_in(minutes tstzmultirange) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (
    SELECT coalesce(sum(extract(epoch FROM upper(m.span) - lower(m.span)) / 60), 0)::integer
    FROM unnest(minutes) AS m (span)
);
COMMENT ON FUNCTION ops.minutes_in(tstzmultirange) IS 'Number of minutes in a bounded set.';

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
COMMENT ON TABLE ops.reconciliations IS
'One row per symbol and UTC day: what the live path, REST, the daily and the monthly file said about it, and in how many minutes each differs from the row that won.';
COMMENT ON COLUMN ops.reconciliations.verdict IS
'agrees: complete, and nobody differs; differs: somebody does, see ops.discrepancies; incomplete: nobody differs so far.';
COMMENT ON COLUMN ops.reconciliations.is_complete IS
'Each expected minute is stored and verified, and REST, the daily file and, once it has spoken, the monthly one have told it. Days of which this is false are taken up again.';
COMMENT ON COLUMN ops.reconciliations.expected_minutes IS
'Minutes that REST, a file or the live path has a row for.';
