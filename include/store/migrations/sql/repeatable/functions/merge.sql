-- The merge stores the greatest candidate of each minute. Candidates have a total order, so neither
-- the order of writes nor repeats matter. include/domain/merge.py is the same rule in Python; tests
-- compare the two. The order, from the most significant:
--   source_rank, evidence_at (null lowest), trade_count and last_trade_id (sources stream and trades
--   only, else 0), the nine values, source.
--
-- Concurrency: new rows are inserted in key order; a second writer of a key waits there. Existing
-- rows are locked in key order and compared by a later statement, whose snapshot sees the commit of
-- the lock's previous holder. Candidates that add nothing take no lock.

CREATE OR REPLACE FUNCTION ops.discard_known_candidates(first_time timestamptz, last_time timestamptz)
RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $$
DECLARE
    n_known bigint;
BEGIN
    -- LIMIT 1 forces an index scan, whatever the statistics say.
    DELETE FROM pg_temp.candidates AS o
    WHERE EXISTS (
        SELECT FROM (
            SELECT * FROM market.candles_1m AS s
            WHERE
                s.symbol = o.symbol AND s.open_time = o.open_time
                AND s.open_time BETWEEN first_time AND last_time
            LIMIT 1
        ) AS c
        WHERE
            (
                o.open, o.high, o.low, o.close, o.volume, o.quote_volume, o.trade_count,
                o.taker_buy_volume, o.taker_buy_quote_volume
            ) = (
                c.open, c.high, c.low, c.close, c.volume, c.quote_volume, c.trade_count,
                c.taker_buy_volume, c.taker_buy_quote_volume
            )
            AND (
                o.source_rank,
                coalesce(o.evidence_at, '-infinity'),
                CASE WHEN o.source IN ('stream', 'trades') THEN o.trade_count ELSE 0 END,
                CASE WHEN o.source IN ('stream', 'trades') THEN coalesce(o.last_trade_id, 0) ELSE 0 END,
                o.source
            ) <= (
                c.source_rank,
                coalesce(c.evidence_at, '-infinity'),
                CASE WHEN c.source IN ('stream', 'trades') THEN c.trade_count ELSE 0 END,
                coalesce(c.evidence_last_trade_id, 0),
                c.source
            )
            AND (coalesce(o.last_trade_id, -1), coalesce(o.first_trade_id, -1))
            <= (coalesce(c.last_trade_id, -1), coalesce(c.first_trade_id, -1))
    );
    GET DIAGNOSTICS n_known = ROW_COUNT;
    RETURN n_known;
END
$$;
COMMENT ON FUNCTION ops.discard_known_candidates(timestamptz, timestamptz) IS
'Part of ops.merge_candidates(): deletes and counts candidates that add nothing to the stored row: equal values, no better source, no higher trade ids.';

CREATE OR REPLACE FUNCTION ops.merge_candidates()
RETURNS TABLE (
    offered bigint, inserted bigint, changed bigint,
    confirmed bigint, unchanged bigint, discrepancies bigint
)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET work_mem = '64MB'
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    n_offered bigint;
    n_open bigint;
    n_inserted bigint;
    n_late bigint;
    n_written bigint;
    n_changed bigint := 0;
    n_confirmed bigint := 0;
    n_discrepancies bigint := 0;
    first_time timestamptz;
    last_time timestamptz;
    next_month timestamptz;
    moment timestamptz;
BEGIN
    SELECT count(*), min(o.open_time), max(o.open_time)
    INTO n_offered, first_time, last_time
    FROM pg_temp.candidates AS o;

    -- A day, because clocks differ and simulated time may run ahead. Without this, one wrong time
    -- would look like a streamer that is up to date.
    IF last_time > clock_timestamp() + interval '1 day' THEN
        RAISE EXCEPTION 'candle of % at % lies in the future (now is %)',
            (SELECT min(o.symbol) FROM pg_temp.candidates AS o WHERE o.open_time = last_time),
            last_time, clock_timestamp()
            USING ERRCODE = 'check_violation', CONSTRAINT = 'candles_1m_not_in_the_future';
    END IF;

    next_month := first_time;
    WHILE next_month IS NOT NULL LOOP
        PERFORM ops.ensure_partition('market.candles_1m', next_month);
        SELECT min(o.open_time) INTO next_month FROM pg_temp.candidates AS o
        WHERE o.open_time >= date_trunc('month', next_month) + interval '1 month';
    END LOOP;

    -- 1. Insert the greatest candidate of each minute that has no row yet.
    moment := clock_timestamp();
    INSERT INTO market.candles_1m (
        symbol, open_time, open, high, low, close, volume, quote_volume, trade_count,
        taker_buy_volume, taker_buy_quote_volume, first_trade_id, last_trade_id,
        status, source, source_rank, evidence_at, evidence_last_trade_id, updated_at
    )
    SELECT DISTINCT ON (o.symbol, o.open_time)
        o.symbol, o.open_time, o.open, o.high, o.low, o.close, o.volume, o.quote_volume,
        o.trade_count, o.taker_buy_volume, o.taker_buy_quote_volume,
        o.first_trade_id, o.last_trade_id, o.status, o.source, o.source_rank, o.evidence_at,
        CASE WHEN o.source IN ('stream', 'trades') THEN coalesce(o.last_trade_id, 0) END,
        moment
    FROM pg_temp.candidates AS o
    ORDER BY
        o.symbol, o.open_time,
        o.source_rank DESC,
        coalesce(o.evidence_at, '-infinity') DESC,
        CASE WHEN o.source IN ('stream', 'trades') THEN o.trade_count ELSE 0 END DESC,
        CASE WHEN o.source IN ('stream', 'trades') THEN coalesce(o.last_trade_id, 0) ELSE 0 END DESC,
        o.open DESC, o.high DESC, o.low DESC, o.close DESC, o.volume DESC,
        o.quote_volume DESC, o.trade_count DESC, o.taker_buy_volume DESC,
        o.taker_buy_quote_volume DESC, o.source DESC
    ON CONFLICT (symbol, open_time) DO NOTHING;
    GET DIAGNOSTICS n_inserted = ROW_COUNT;
    n_open := n_offered - n_inserted;

    -- A bulk load of new rows ends here.
    IF n_open > 0 THEN
        n_open := n_offered - ops.discard_known_candidates(first_time, last_time);
    END IF;

    IF n_open > 0 THEN
        -- 2. Confirm rows with equal values by a better source, the usual case of an existing row.
        -- Rows with other values are locked as well (in key order), and rows deleted since step 1
        -- are inserted. Afterwards every candidate has a row that this transaction has locked.
        moment := clock_timestamp();
        WITH written AS (
            INSERT INTO market.candles_1m AS c (
                symbol, open_time, open, high, low, close, volume, quote_volume, trade_count,
                taker_buy_volume, taker_buy_quote_volume, first_trade_id, last_trade_id,
                status, source, source_rank, evidence_at, evidence_last_trade_id, updated_at
            )
            SELECT DISTINCT ON (o.symbol, o.open_time)
                o.symbol, o.open_time, o.open, o.high, o.low, o.close, o.volume, o.quote_volume,
                o.trade_count, o.taker_buy_volume, o.taker_buy_quote_volume,
                o.first_trade_id, o.last_trade_id, o.status, o.source, o.source_rank, o.evidence_at,
                CASE WHEN o.source IN ('stream', 'trades') THEN coalesce(o.last_trade_id, 0) END,
                moment
            FROM pg_temp.candidates AS o
            ORDER BY
                o.symbol, o.open_time,
                o.source_rank DESC,
                coalesce(o.evidence_at, '-infinity') DESC,
                CASE WHEN o.source IN ('stream', 'trades') THEN o.trade_count ELSE 0 END DESC,
                CASE WHEN o.source IN ('stream', 'trades') THEN coalesce(o.last_trade_id, 0) ELSE 0 END DESC,
                o.open DESC, o.high DESC, o.low DESC, o.close DESC, o.volume DESC,
                o.quote_volume DESC, o.trade_count DESC, o.taker_buy_volume DESC,
                o.taker_buy_quote_volume DESC, o.source DESC
            ON CONFLICT (symbol, open_time) DO UPDATE SET
                first_trade_id = CASE
                    WHEN (coalesce(excluded.last_trade_id, -1), coalesce(excluded.first_trade_id, -1))
                        > (coalesce(c.last_trade_id, -1), coalesce(c.first_trade_id, -1))
                        THEN excluded.first_trade_id
                    ELSE c.first_trade_id
                END,
                last_trade_id = greatest(excluded.last_trade_id, c.last_trade_id),
                status = excluded.status,
                source = excluded.source,
                source_rank = excluded.source_rank,
                evidence_at = excluded.evidence_at,
                evidence_last_trade_id = excluded.evidence_last_trade_id
            WHERE
                (
                    excluded.open, excluded.high, excluded.low, excluded.close, excluded.volume,
                    excluded.quote_volume, excluded.trade_count, excluded.taker_buy_volume,
                    excluded.taker_buy_quote_volume
                ) = (
                    c.open, c.high, c.low, c.close, c.volume,
                    c.quote_volume, c.trade_count, c.taker_buy_volume,
                    c.taker_buy_quote_volume
                )
                AND (
                    excluded.source_rank,
                    coalesce(excluded.evidence_at, '-infinity'),
                    CASE WHEN excluded.source IN ('stream', 'trades') THEN excluded.trade_count ELSE 0 END,
                    coalesce(excluded.evidence_last_trade_id, 0),
                    excluded.source
                ) > (
                    c.source_rank,
                    coalesce(c.evidence_at, '-infinity'),
                    CASE WHEN c.source IN ('stream', 'trades') THEN c.trade_count ELSE 0 END,
                    coalesce(c.evidence_last_trade_id, 0),
                    c.source
                )
            RETURNING c.updated_at
        )

        -- An update keeps updated_at, so the current time marks an insert.
        SELECT
            count(*) FILTER (WHERE w.updated_at = moment),
            count(*) FILTER (WHERE w.updated_at <> moment)
        INTO n_late, n_confirmed
        FROM written AS w;
        n_inserted := n_inserted + n_late;
        n_open := n_open - ops.discard_known_candidates(first_time, last_time);
    END IF;

    IF n_open > 0 THEN
        -- 3. The remaining candidates have other values or higher ids: rank them with their row.
        moment := clock_timestamp();

        WITH rivals AS (
            SELECT
                o.*,
                CASE WHEN o.source IN ('stream', 'trades') THEN coalesce(o.last_trade_id, 0) END
                    AS evidence_last_trade_id,
                NULL::timestamptz AS stored_since
            FROM pg_temp.candidates AS o
            UNION ALL
            SELECT
                c.symbol, c.open_time, c.open, c.high, c.low, c.close, c.volume, c.quote_volume,
                c.trade_count, c.taker_buy_volume, c.taker_buy_quote_volume,
                c.first_trade_id, c.last_trade_id, c.status, c.source, c.source_rank,
                c.evidence_at, c.evidence_last_trade_id, c.updated_at
            FROM (SELECT DISTINCT o.symbol, o.open_time FROM pg_temp.candidates AS o) AS k
            CROSS JOIN LATERAL (
                SELECT * FROM market.candles_1m AS s
                WHERE
                    s.symbol = k.symbol AND s.open_time = k.open_time
                    AND s.open_time BETWEEN first_time AND last_time
                LIMIT 1
            ) AS c
        ),

        -- place 1 is the winner; value_set numbers the distinct combinations of the nine values
        ranked AS (
            SELECT
                k.*,
                row_number() OVER (
                    PARTITION BY k.symbol, k.open_time
                    ORDER BY
                        k.source_rank DESC,
                        coalesce(k.evidence_at, '-infinity') DESC,
                        CASE WHEN k.source IN ('stream', 'trades') THEN k.trade_count ELSE 0 END DESC,
                        coalesce(k.evidence_last_trade_id, 0) DESC,
                        k.open DESC, k.high DESC, k.low DESC, k.close DESC, k.volume DESC,
                        k.quote_volume DESC, k.trade_count DESC, k.taker_buy_volume DESC,
                        k.taker_buy_quote_volume DESC, k.source DESC,
                        k.stored_since ASC NULLS LAST
                ) AS place,
                dense_rank() OVER (
                    PARTITION BY k.symbol, k.open_time
                    ORDER BY
                        k.open, k.high, k.low, k.close, k.volume, k.quote_volume, k.trade_count,
                        k.taker_buy_volume, k.taker_buy_quote_volume
                ) AS value_set
            FROM rivals AS k
        ),

        compared AS MATERIALIZED (
            SELECT
                r.*,
                first_value(r.value_set) OVER by_place AS winning_set,
                first_value(r.source) OVER by_place AS winner_source,
                first_value(r.status) OVER by_place AS winner_status,
                first_value(r.evidence_at) OVER by_place AS winner_evidence_at,
                max(r.value_set) FILTER (WHERE r.stored_since IS NOT NULL) OVER by_key AS stored_set,
                first_value(r.first_trade_id) OVER by_ids AS set_first_trade_id,
                first_value(r.last_trade_id) OVER by_ids AS set_last_trade_id
            FROM ranked AS r
            WINDOW
                by_key AS (PARTITION BY r.symbol, r.open_time),
                by_place AS (PARTITION BY r.symbol, r.open_time ORDER BY r.place),
                by_ids AS (
                    PARTITION BY r.symbol, r.open_time, r.value_set
                    ORDER BY coalesce(r.last_trade_id, -1) DESC, coalesce(r.first_trade_id, -1) DESC
                )
        ),

        -- Trade ids depend on the values: values that win again get the ids that they lost with.
        stored AS (
            INSERT INTO market.candles_1m AS c (
                symbol, open_time, open, high, low, close, volume, quote_volume, trade_count,
                taker_buy_volume, taker_buy_quote_volume, first_trade_id, last_trade_id,
                status, source, source_rank, evidence_at, evidence_last_trade_id,
                revision, updated_at
            )
            SELECT
                j.symbol, j.open_time, j.open, j.high, j.low, j.close, j.volume, j.quote_volume,
                j.trade_count, j.taker_buy_volume, j.taker_buy_quote_volume,
                CASE WHEN former.are_higher THEN former.first_trade_id ELSE j.set_first_trade_id END,
                CASE WHEN former.are_higher THEN former.last_trade_id ELSE j.set_last_trade_id END,
                j.status, j.source, j.source_rank, j.evidence_at, j.evidence_last_trade_id,
                (j.winning_set <> j.stored_set)::integer, moment
            FROM compared AS j
            LEFT JOIN LATERAL (
                SELECT
                    d.loser_first_trade_id AS first_trade_id,
                    d.loser_last_trade_id AS last_trade_id,
                    (coalesce(d.loser_last_trade_id, -1), coalesce(d.loser_first_trade_id, -1))
                    > (coalesce(j.set_last_trade_id, -1), coalesce(j.set_first_trade_id, -1))
                        AS are_higher
                FROM ops.discrepancies AS d
                WHERE
                    j.winning_set <> j.stored_set
                    AND d.symbol = j.symbol AND d.open_time = j.open_time
                    AND (
                        d.loser_open, d.loser_high, d.loser_low, d.loser_close, d.loser_volume,
                        d.loser_quote_volume, d.loser_trade_count, d.loser_taker_buy_volume,
                        d.loser_taker_buy_quote_volume
                    ) = (
                        j.open, j.high, j.low, j.close, j.volume,
                        j.quote_volume, j.trade_count, j.taker_buy_volume,
                        j.taker_buy_quote_volume
                    )
                ORDER BY
                    coalesce(d.loser_last_trade_id, -1) DESC,
                    coalesce(d.loser_first_trade_id, -1) DESC
                LIMIT 1
            ) AS former ON true
            WHERE
                j.place = 1
                AND (
                    j.stored_since IS NULL
                    OR (j.first_trade_id, j.last_trade_id)
                    IS DISTINCT FROM (j.set_first_trade_id, j.set_last_trade_id)
                )
            ORDER BY j.symbol, j.open_time
            ON CONFLICT (symbol, open_time) DO UPDATE SET
                open = excluded.open,
                high = excluded.high,
                low = excluded.low,
                close = excluded.close,
                volume = excluded.volume,
                quote_volume = excluded.quote_volume,
                trade_count = excluded.trade_count,
                taker_buy_volume = excluded.taker_buy_volume,
                taker_buy_quote_volume = excluded.taker_buy_quote_volume,
                first_trade_id = excluded.first_trade_id,
                last_trade_id = excluded.last_trade_id,
                status = excluded.status,
                source = excluded.source,
                source_rank = excluded.source_rank,
                evidence_at = excluded.evidence_at,
                evidence_last_trade_id = excluded.evidence_last_trade_id,
                revision = c.revision + excluded.revision,
                -- Not before the former values, even if the clock was set back.
                updated_at = CASE WHEN excluded.revision > 0
                    THEN greatest(excluded.updated_at, c.updated_at) ELSE c.updated_at
                END
            RETURNING c.symbol, c.open_time
        ),

        losers AS (
            INSERT INTO ops.discrepancies AS d (
                symbol, open_time, found_at, winner_source, winner_status, winner_evidence_at,
                loser_source, loser_status, loser_evidence_at,
                loser_open, loser_high, loser_low, loser_close, loser_volume, loser_quote_volume,
                loser_trade_count, loser_taker_buy_volume, loser_taker_buy_quote_volume,
                loser_first_trade_id, loser_last_trade_id, stored_during
            )
            SELECT
                j.symbol, j.open_time, moment,
                min(j.winner_source), min(j.winner_status), min(j.winner_evidence_at),
                j.source, j.status, max(j.evidence_at),
                j.open, j.high, j.low, j.close, j.volume, j.quote_volume,
                j.trade_count, j.taker_buy_volume, j.taker_buy_quote_volume,
                min(j.set_first_trade_id), min(j.set_last_trade_id),
                coalesce(
                    range_agg(tstzrange(j.stored_since, greatest(moment, j.stored_since)))
                    FILTER (WHERE j.stored_since IS NOT NULL),
                    '{}'
                )
            FROM compared AS j
            WHERE j.value_set <> j.winning_set
            GROUP BY
                j.symbol, j.open_time, j.source, j.status,
                j.open, j.high, j.low, j.close, j.volume, j.quote_volume,
                j.trade_count, j.taker_buy_volume, j.taker_buy_quote_volume
            ORDER BY j.symbol, j.open_time
            ON CONFLICT ON CONSTRAINT discrepancies_one_row_per_loser DO UPDATE SET
                loser_evidence_at = greatest(d.loser_evidence_at, excluded.loser_evidence_at),
                loser_first_trade_id = CASE
                    WHEN (coalesce(excluded.loser_last_trade_id, -1), coalesce(excluded.loser_first_trade_id, -1))
                        > (coalesce(d.loser_last_trade_id, -1), coalesce(d.loser_first_trade_id, -1))
                        THEN excluded.loser_first_trade_id
                    ELSE d.loser_first_trade_id
                END,
                loser_last_trade_id = greatest(
                    excluded.loser_last_trade_id, d.loser_last_trade_id
                ),
                stored_during = d.stored_during + excluded.stored_during
            WHERE
                coalesce(excluded.loser_evidence_at, '-infinity')
                > coalesce(d.loser_evidence_at, '-infinity')
                OR (coalesce(excluded.loser_last_trade_id, -1), coalesce(excluded.loser_first_trade_id, -1))
                > (coalesce(d.loser_last_trade_id, -1), coalesce(d.loser_first_trade_id, -1))
                OR NOT excluded.stored_during <@ d.stored_during
            RETURNING (d.xmax = 0) AS is_new
        )

        SELECT
            (SELECT count(*) FROM losers AS l WHERE l.is_new),
            (
                SELECT count(*) FROM compared AS j
                WHERE j.place = 1 AND j.winning_set <> j.stored_set
            ),
            (SELECT count(*) FROM stored)
        INTO n_discrepancies, n_changed, n_written;
        n_confirmed := n_confirmed + n_written - n_changed;
    END IF;

    RETURN QUERY SELECT
        n_offered, n_inserted, n_changed, n_confirmed,
        n_offered - n_inserted - n_changed - n_confirmed, n_discrepancies;
END
$$;
COMMENT ON FUNCTION ops.merge_candidates() IS
'Merges the temporary table "candidates" (LIKE ops.candle_candidates), whose rows it may delete, into market.candles_1m. Returns the number of candidates and of each outcome. Needs isolation level read committed.';

-- One statement for the streamer: each further statement costs a turn of its event loop, which takes
-- milliseconds while 1,500 closed klines arrive.
CREATE OR REPLACE FUNCTION ops.store_candles(
    symbols text [], open_times timestamptz [],
    opens numeric [], highs numeric [], lows numeric [], closes numeric [],
    volumes numeric [], quote_volumes numeric [], trade_counts bigint [],
    taker_buy_volumes numeric [], taker_buy_quote_volumes numeric [],
    first_trade_ids bigint [], last_trade_ids bigint [],
    statuses text [], sources text [], source_ranks smallint [], evidence_times timestamptz []
)
RETURNS TABLE (
    offered bigint, inserted bigint, changed bigint,
    confirmed bigint, unchanged bigint, discrepancies bigint
)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET client_min_messages = warning
SET jit = off
AS $$
BEGIN
    CREATE TEMPORARY TABLE IF NOT EXISTS candidates (LIKE ops.candle_candidates) ON COMMIT DELETE ROWS;
    DELETE FROM pg_temp.candidates; -- rows of an earlier merge in the same transaction
    INSERT INTO pg_temp.candidates (
        symbol, open_time, open, high, low, close, volume, quote_volume, trade_count,
        taker_buy_volume, taker_buy_quote_volume, first_trade_id, last_trade_id,
        status, source, source_rank, evidence_at
    )
    SELECT r.* FROM unnest(
        symbols, open_times, opens, highs, lows, closes, volumes, quote_volumes, trade_counts,
        taker_buy_volumes, taker_buy_quote_volumes, first_trade_ids, last_trade_ids,
        statuses, sources, source_ranks, evidence_times
    ) AS r;
    RETURN QUERY SELECT * FROM ops.merge_candidates();
    PERFORM ops.delete_live_candles(symbols, open_times);
END
$$;
COMMENT ON FUNCTION ops.store_candles IS
'Merges candidates given as arrays, as ops.merge_candidates() does, and deletes their minutes from market.live_candles.';
