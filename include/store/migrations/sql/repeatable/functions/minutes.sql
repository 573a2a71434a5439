CREATE OR REPLACE FUNCTION ops.minute_of(moment timestamptz) RETURNS tstzrange
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN tstzrange(
    date_bin('1 minute', moment, '2001-01-01 00:00:00+00'),
    date_bin('1 minute', moment, '2001-01-01 00:00:00+00') + interval '1 minute'
);
COMMENT ON FUNCTION ops.minute_of(timestamptz) IS 'The minute that contains a moment, as a range.';

CREATE OR REPLACE FUNCTION ops.minutes_in(minutes tstzmultirange) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (
    SELECT coalesce(sum(extract(epoch FROM upper(m.span) - lower(m.span)) / 60), 0)::integer
    FROM unnest(minutes) AS m (span)
);
COMMENT ON FUNCTION ops.minutes_in(tstzmultirange) IS 'Number of minutes in a bounded multirange.';
