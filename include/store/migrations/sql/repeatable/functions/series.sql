-- One merge for all derivative series. The row of a time is the greatest candidate:
--   1. rank: position of the source in ops.series.sources; 0 for a partial row
--   2. evidence_at
--   3. the values and carried columns, source: only so that the order of writes never matters.
-- Filled columns (funding: mark price of REST, interval of the files) keep what any source knew.
-- Values that lost are kept in ops.series_discrepancies, unless they differ in printed digits alone. An
-- unknown value differs from a known one.
--
-- Concurrency: as ops.merge_candidates(). New rows are inserted in key order; existing rows are locked
-- in key order, and compared by a later statement, which sees the commit of the lock's previous holder.

CREATE OR REPLACE FUNCTION ops.merge_series(of_series text)
RETURNS TABLE (
    offered bigint, inserted bigint, changed bigint,
    confirmed bigint, unchanged bigint, discrepancies bigint
)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    s record;
    rel text;
    cand text;
    t text;
    rank_of text; -- of the row alias in %1$s
    order_of text;
    evidence_of text;
    all_values text;
    columns text;
    n_offered bigint;
    n_inserted bigint;
    n_known bigint := 0;
    n_changed bigint := 0;
    n_confirmed bigint := 0;
    n_discrepancies bigint := 0;
    first_time timestamptz;
    last_time timestamptz;
    next_month timestamptz;
BEGIN
    SELECT * INTO STRICT s FROM ops.series AS d WHERE d.series = of_series;
    rel := format('market.%I', s.relation);
    cand := format('pg_temp.%I', 'candidates_' || s.series);
    t := quote_ident(s.time_column);
    rank_of := format(
        'CASE WHEN %%1$s.status = ''partial'' THEN 0 ELSE coalesce(array_position(%L::text[], %%1$s.source::text), 0) END',
        s.sources
    );
    evidence_of := rank_of || ', %1$s.evidence_at';
    order_of := rank_of || ' DESC, %1$s.evidence_at DESC, ' || (
        SELECT string_agg(format('%%1$s.%I DESC NULLS LAST', u.name), ', ' ORDER BY u.place)
        FROM unnest(s.value_columns || s.carried_columns) WITH ORDINALITY AS u (name, place)
    ) || ', %1$s.source DESC';
    all_values := (
        SELECT string_agg(format('%%1$s.%I', u.name), ', ' ORDER BY u.place)
        FROM unnest(s.value_columns) WITH ORDINALITY AS u (name, place)
    );
    columns := format('symbol, %s, ', t) || (
        SELECT string_agg(quote_ident(u.name), ', ' ORDER BY u.place)
        FROM unnest(s.value_columns || s.carried_columns || s.filled_columns) WITH ORDINALITY AS u (name, place)
    ) || ', status, source, evidence_at';

    EXECUTE format('SELECT count(*), min(%1$s), max(%1$s) FROM %2$s', t, cand)
    INTO n_offered, first_time, last_time;
    IF last_time > clock_timestamp() + interval '1 day' THEN
        RAISE EXCEPTION 'series %: a row at % lies in the future (now is %)',
            of_series, last_time, clock_timestamp()
            USING ERRCODE = 'check_violation', CONSTRAINT = 'series_not_in_the_future';
    END IF;
    IF (SELECT c.relkind = 'p' FROM pg_class AS c WHERE c.oid = rel::regclass) THEN
        next_month := first_time;
        WHILE next_month IS NOT NULL LOOP
            PERFORM ops.ensure_partition(rel::regclass, next_month);
            EXECUTE format('SELECT min(%1$s) FROM %2$s WHERE %1$s >= $1', t, cand)
            INTO next_month USING date_trunc('month', next_month) + interval '1 month';
        END LOOP;
    END IF;

    -- 1. Insert the greatest candidate of each time that has no row yet.
    EXECUTE format(
        'INSERT INTO %1$s (%2$s) SELECT DISTINCT ON (o.symbol, o.%3$s) %4$s FROM %5$s AS o '
        'ORDER BY o.symbol, o.%3$s, %6$s ON CONFLICT (symbol, %3$s) DO NOTHING',
        rel, columns, t, columns, cand, format(order_of, 'o')
    );
    GET DIAGNOSTICS n_inserted = ROW_COUNT;

    -- 2. Forget candidates that add nothing: most of them, when a load is repeated.
    EXECUTE format(
        'DELETE FROM %1$s AS o WHERE EXISTS (SELECT FROM ('
        '    SELECT * FROM %2$s AS i WHERE i.symbol = o.symbol AND i.%3$s = o.%3$s'
        '    AND i.%3$s BETWEEN $1 AND $2 LIMIT 1) AS c '
        'WHERE (%4$s) IS NOT DISTINCT FROM (%5$s) AND (%6$s) <= (%7$s)%8$s)',
        cand, rel, t,
        'ROW(' || format(all_values, 'o') || ')', 'ROW(' || format(all_values, 'c') || ')',
        concat_ws(', ', format(evidence_of, 'o'), (
            SELECT string_agg(format('o.%I', u.name), ', ') FROM unnest(s.carried_columns) AS u (name)
        ), 'o.source'),
        concat_ws(', ', format(evidence_of, 'c'), (
            SELECT string_agg(format('c.%I', u.name), ', ') FROM unnest(s.carried_columns) AS u (name)
        ), 'c.source'),
        coalesce((
            SELECT string_agg(
                format(' AND c.%1$I IS NOT DISTINCT FROM greatest(o.%1$I, c.%1$I)', u.name), ''
            )
            FROM unnest(s.filled_columns) AS u (name)
        ), '')
    ) USING first_time, last_time;
    GET DIAGNOSTICS n_known = ROW_COUNT;

    IF n_known < n_offered THEN
        -- 3. Lock the rows of the others, then rank all rivals of each time.
        EXECUTE format(
            'SELECT FROM %1$s AS c WHERE (c.symbol, c.%2$s) IN (SELECT o.symbol, o.%2$s FROM %3$s AS o) '
            'AND c.%2$s BETWEEN $1 AND $2 ORDER BY c.symbol, c.%2$s FOR UPDATE',
            rel, t, cand
        ) USING first_time, last_time;
        EXECUTE format(
            'WITH old AS MATERIALIZED ('
            '    SELECT c.* FROM (SELECT DISTINCT o.symbol, o.%3$s FROM %1$s AS o) AS k '
            '    CROSS JOIN LATERAL (SELECT * FROM %2$s AS i WHERE i.symbol = k.symbol '
            '        AND i.%3$s = k.%3$s AND i.%3$s BETWEEN $1 AND $2 LIMIT 1) AS c'
            '), rivals AS ('
            '    SELECT %4$s FROM %1$s UNION ALL SELECT %4$s FROM old'
            '), ranked AS ('
            '    SELECT r.*, row_number() OVER (PARTITION BY r.symbol, r.%3$s ORDER BY %5$s) AS place'
            '    FROM rivals AS r'
            '), known AS ('
            '    SELECT r.symbol, r.%3$s%6$s FROM rivals AS r GROUP BY r.symbol, r.%3$s'
            '), lost AS ('
            '    INSERT INTO ops.series_discrepancies AS d '
            '    (series, symbol, "time", loser_source, loser_status, loser_evidence_at, loser_values)'
            '    SELECT DISTINCT ON (l.symbol, l.%3$s, v.held)'
            '        %7$L, l.symbol, l.%3$s, l.source, l.status, l.evidence_at, v.held'
            '    FROM ranked AS l'
            '    INNER JOIN ranked AS w ON w.symbol = l.symbol AND w.%3$s = l.%3$s AND w.place = 1'
            '    CROSS JOIN LATERAL (SELECT %8$s AS held) AS v'
            '    WHERE l.place > 1 AND (%9$s)'
            '    ORDER BY l.symbol, l.%3$s, v.held, l.place'
            '    ON CONFLICT (series, symbol, "time", loser_values) DO UPDATE SET'
            '        loser_source = excluded.loser_source, loser_status = excluded.loser_status,'
            '        loser_evidence_at = excluded.loser_evidence_at'
            '    WHERE (%10$s, excluded.loser_evidence_at, excluded.loser_source)'
            '        > (%11$s, d.loser_evidence_at, d.loser_source)'
            '    RETURNING d.xmax = 0 AS is_new'
            '), updated AS ('
            '    UPDATE %2$s AS c SET %12$s, status = w.status, source = w.source,'
            '        evidence_at = w.evidence_at,'
            '        revision = c.revision + (%13$s IS DISTINCT FROM %14$s)::integer,'
            '        updated_at = CASE WHEN ROW(%15$s) IS DISTINCT FROM ROW(%16$s)'
            '            THEN clock_timestamp() ELSE c.updated_at END'
            '    FROM ranked AS w INNER JOIN known AS f ON f.symbol = w.symbol AND f.%3$s = w.%3$s'
            '    INNER JOIN old AS o ON o.symbol = w.symbol AND o.%3$s = w.%3$s'
            '    WHERE w.place = 1 AND c.symbol = w.symbol AND c.%3$s = w.%3$s'
            '        AND c.%3$s BETWEEN $1 AND $2'
            '        AND ROW(%15$s, w.status, w.source, w.evidence_at)'
            '        IS DISTINCT FROM ROW(%16$s, o.status, o.source, o.evidence_at)'
            '    RETURNING %17$s IS DISTINCT FROM %13$s AS is_changed'
            ') '
            'SELECT count(*) FILTER (WHERE u.is_changed), count(*) FILTER (WHERE NOT u.is_changed), '
            '    (SELECT count(*) FROM lost AS l WHERE l.is_new) FROM updated AS u',
            cand, rel, t, columns, format(order_of, 'r'),
            coalesce((
                SELECT string_agg(format(', max(r.%1$I) AS %1$I', u.name), '')
                FROM unnest(s.filled_columns) AS u (name)
            ), ''),
            s.series,
            ops.series_values_of(s.value_columns, 'l'),
            (
                SELECT string_agg(
                    format(
                        '(l.%1$I IS NULL) <> (w.%1$I IS NULL) OR abs(l.%1$I - w.%1$I) > %2$s',
                        u.name, u.unit
                    ), ' OR '
                )
                FROM unnest(s.value_columns, s.value_units) AS u (name, unit)
            ),
            replace(replace(format(rank_of, 'excluded'), '.source', '.loser_source'), '.status', '.loser_status'),
            replace(replace(format(rank_of, 'd'), '.source', '.loser_source'), '.status', '.loser_status'),
            (
                SELECT string_agg(format('%1$I = w.%1$I', u.name), ', ')
                FROM unnest(s.value_columns || s.carried_columns) AS u (name)
            ) || coalesce((
                SELECT string_agg(format(', %1$I = f.%1$I', u.name), '')
                FROM unnest(s.filled_columns) AS u (name)
            ), ''),
            'ROW(' || format(all_values, 'o') || ')', 'ROW(' || format(all_values, 'w') || ')',
            ops.series_row_of(s.value_columns || s.carried_columns, 'w', s.filled_columns, 'f'),
            ops.series_row_of(s.value_columns || s.carried_columns, 'o', s.filled_columns, 'o'),
            'ROW(' || format(all_values, 'w') || ')'
        ) INTO n_changed, n_confirmed, n_discrepancies USING first_time, last_time;

        -- 4. Values that lost earlier may be the row's now.
        EXECUTE format(
            'DELETE FROM ops.series_discrepancies AS d USING %1$s AS o, %2$s AS c '
            'WHERE d.series = %3$L AND d.symbol = o.symbol AND d."time" = o.%4$s '
            'AND c.symbol = o.symbol AND c.%4$s = o.%4$s AND c.%4$s BETWEEN $1 AND $2 '
            'AND NOT coalesce(%5$s, false)',
            cand, rel, s.series, t, (
                SELECT string_agg(
                    format(
                        '(d.loser_values ->> %1$L IS NULL) <> (c.%2$I IS NULL) OR abs((d.loser_values ->> %1$L)::numeric - c.%2$I) > %3$s',
                        u.name, u.name, u.unit
                    ), ' OR '
                )
                FROM unnest(s.value_columns, s.value_units) AS u (name, unit)
            )
        ) USING first_time, last_time;
    END IF;
    RETURN QUERY SELECT
        n_offered, n_inserted, n_changed, n_confirmed,
        greatest(0, n_offered - n_inserted - n_changed - n_confirmed), n_discrepancies;
END
$$;
COMMENT ON FUNCTION ops.merge_series(text) IS
'Merges the rows of pg_temp.candidates_<series> into the table of a derivative series, as ops.series declares it, and keeps values that lost in ops.series_discrepancies. Any order of calls gives the same rows.';

CREATE OR REPLACE FUNCTION ops.series_values_of(names text [], alias text) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
SELECT 'jsonb_build_object(' || string_agg(format('%1$L, %2$s.%1$I', u.name, alias), ', ') || ')'
FROM unnest(names) AS u (name)
$$;
COMMENT ON FUNCTION ops.series_values_of(text [], text) IS
'Part of ops.merge_series(): the expression for the values of a row, as in ops.series_discrepancies.';

CREATE OR REPLACE FUNCTION ops.series_row_of(
    names text [], alias text, filled_names text [], filled_alias text
) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
SELECT string_agg(format('%s.%I', u.alias, u.name), ', ')
FROM (
    SELECT series_row_of.alias, n.name FROM unnest(names) AS n (name)
    UNION ALL
    SELECT filled_alias, f.name FROM unnest(filled_names) AS f (name)
) AS u (alias, name)
$$;
COMMENT ON FUNCTION ops.series_row_of(text [], text, text [], text) IS
'Part of ops.merge_series(): the expressions for all columns of a row that have a meaning of their own.';

-- A function and not a view: of the minutes of all symbols, only a bounded time can be read.
CREATE OR REPLACE FUNCTION ops.series_gaps(
    since timestamptz, until timestamptz, of_symbol text DEFAULT NULL, of_series text DEFAULT NULL
)
RETURNS TABLE (
    series text, symbol text, from_time timestamptz, to_time timestamptz, missing bigint, reason text
)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
#variable_conflict use_column
DECLARE
    s record;
    holes text;
BEGIN
    FOR s IN
        SELECT d.* FROM ops.series AS d WHERE of_series IS NULL OR d.series = of_series ORDER BY d.series
    LOOP
        IF s.step IS NOT NULL THEN
            -- From the first row to the end of what sources were asked for.
            holes := format(
                'SELECT k.symbol, m.span, ceil(extract(epoch FROM upper(m.span) - lower(m.span)) / $5)::bigint AS n '
                'FROM (SELECT r.symbol, min(r.%2$s) AS first_time, max(r.%2$s) + $4 AS last_time,'
                '    range_agg(tstzrange(r.%2$s, r.%2$s + $4)) AS times'
                '    FROM market.%1$I AS r'
                '    WHERE r.%2$s >= $1 AND r.%2$s < $2 AND ($3 IS NULL OR r.symbol = $3)'
                '    GROUP BY r.symbol) AS k '
                'LEFT JOIN asked AS a ON a.symbol = k.symbol '
                'CROSS JOIN LATERAL (SELECT EXISTS (SELECT FROM market.%1$I AS e'
                '    WHERE e.symbol = k.symbol AND e.%2$s < $1) AS is_older) AS b '
                'CROSS JOIN LATERAL unnest(tstzmultirange(tstzrange('
                '    CASE WHEN b.is_older THEN $1 ELSE k.first_time END,'
                '    least($2, greatest(k.last_time, upper(a.times))))) - k.times) AS m (span)',
                s.relation, quote_ident(s.time_column)
            );
        ELSE
            -- The rule of include/domain/series/funding.py.
            holes := format(
                'SELECT p.symbol, tstzrange(p.before_at + p.hours_due * interval ''1 hour'', p.at) AS span,'
                '    ceil(p.hours / p.hours_due)::bigint - 1 AS n '
                'FROM (SELECT q.*, least(8, greatest('
                '        coalesce(q.interval_before, min(q.hours) OVER before, 8),'
                '        coalesce(q.interval_hours, min(q.hours) OVER after, 8))) AS hours_due'
                '    FROM (SELECT r.symbol, r.%2$s AS at, r.interval_hours,'
                '        lag(r.%2$s) OVER one AS before_at, lag(r.interval_hours) OVER one AS interval_before,'
                '        extract(epoch FROM r.%2$s - lag(r.%2$s) OVER one) / 3600 AS hours'
                '        FROM market.%1$I AS r'
                '        WHERE r.%2$s >= $1 AND r.%2$s < $2 AND ($3 IS NULL OR r.symbol = $3)'
                '        WINDOW one AS (PARTITION BY r.symbol ORDER BY r.%2$s)) AS q'
                '    WINDOW before AS (PARTITION BY q.symbol ORDER BY q.at ROWS BETWEEN 3 PRECEDING AND 1 PRECEDING),'
                '        after AS (PARTITION BY q.symbol ORDER BY q.at ROWS BETWEEN 1 FOLLOWING AND 3 FOLLOWING)'
                ') AS p WHERE p.hours > p.hours_due',
                s.relation, quote_ident(s.time_column)
            );
        END IF;
        RETURN QUERY EXECUTE format(
            'WITH asked AS MATERIALIZED ('
            '    SELECT v.symbol, range_agg(v.times) AS times FROM ops.series_coverage AS v'
            '    WHERE v.series = %1$L AND ($3 IS NULL OR v.symbol = $3) GROUP BY v.symbol'
            '), holes AS (%2$s), parts AS ('
            '    SELECT h.symbol, m.span, h.n, ''exchange_lacks'' AS reason FROM holes AS h'
            '    INNER JOIN asked AS a ON a.symbol = h.symbol'
            '    CROSS JOIN LATERAL unnest(tstzmultirange(h.span) * a.times) AS m (span)'
            '    UNION ALL'
            '    SELECT h.symbol, m.span, h.n, ''not_loaded'' FROM holes AS h'
            '    LEFT JOIN asked AS a ON a.symbol = h.symbol'
            '    CROSS JOIN LATERAL unnest(tstzmultirange(h.span) - coalesce(a.times, ''{}'')) AS m (span)'
            ') '
            'SELECT %1$L, p.symbol::text, lower(p.span), upper(p.span),'
            '    CASE WHEN $5 IS NULL THEN p.n'
            '    ELSE ceil(extract(epoch FROM upper(p.span) - lower(p.span)) / $5)::bigint END, p.reason '
            'FROM parts AS p ORDER BY p.symbol, p.span',
            s.series, holes
        ) USING since, until, of_symbol, s.step, extract(epoch FROM s.step);
    END LOOP;
END
$$;
COMMENT ON FUNCTION ops.series_gaps(timestamptz, timestamptz, text, text) IS
'Missing rows of derivative series within a time: exchange_lacks where a source was asked and had none, not_loaded where none was asked. A hole of funding may be cut by coverage; each part has the number of the whole hole.';

-- For research: what was known of a future at a moment, such as the close of a bar of any timeframe.
-- Each part is an index probe backwards in time, so no later row can change the result.
CREATE OR REPLACE FUNCTION market.derivatives_as_of(of_symbol text, moment timestamptz)
RETURNS TABLE (
    mark_price numeric, mark_price_at timestamptz,
    index_price numeric, index_price_at timestamptz,
    funding_rate numeric, funded_at timestamptz, next_funding_at timestamptz,
    open_interest numeric, open_interest_at timestamptz
)
LANGUAGE sql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
SELECT
    mark.close, mark.open_time + interval '1 minute',
    spot.close, spot.open_time + interval '1 minute',
    funding.funding_rate, funding.funding_time,
    funding.settles_at
    + coalesce(
        funding.interval_hours * interval '1 hour', funding.settles_at - earlier.settles_at
    ),
    interest.open_interest, interest.time
FROM (SELECT 1) AS one
LEFT JOIN LATERAL (
    SELECT m.close, m.open_time FROM market.mark_prices_1m AS m
    WHERE m.symbol = of_symbol AND m.open_time <= moment - interval '1 minute'
    ORDER BY m.open_time DESC LIMIT 1
) AS mark ON true
LEFT JOIN LATERAL (
    SELECT i.close, i.open_time FROM market.index_prices_1m AS i
    WHERE i.symbol = of_symbol AND i.open_time <= moment - interval '1 minute'
    ORDER BY i.open_time DESC LIMIT 1
) AS spot ON true
-- A settlement is known some milliseconds after its hour, so the candle that ends at the hour lacks it.
LEFT JOIN LATERAL (
    SELECT * FROM market.funding_rates AS f
    WHERE
        f.symbol = of_symbol AND f.settles_at <= moment + interval '1 second'
        AND f.funding_time <= moment
    ORDER BY f.settles_at DESC LIMIT 1
) AS funding ON true
LEFT JOIN LATERAL (
    SELECT f.settles_at FROM market.funding_rates AS f
    WHERE f.symbol = of_symbol AND f.settles_at < funding.settles_at
    ORDER BY f.settles_at DESC LIMIT 1
) AS earlier ON true
LEFT JOIN LATERAL (
    SELECT o.open_interest, o.time FROM market.open_interest_5m AS o
    WHERE o.symbol = of_symbol AND o.time <= moment
    ORDER BY o.time DESC LIMIT 1
) AS interest ON true
$$;
COMMENT ON FUNCTION market.derivatives_as_of(text, timestamptz) IS
'What was known of a future at a moment: mark and index price of the last minute that had ended, the funding rate settled last and when the next is due, and the last sample of open interest. Later rows never change the result.';
