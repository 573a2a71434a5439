-- Change log. Statement-level triggers write one row per symbol and statement. They run with the
-- owner's privileges: writers have none on the log and cannot bypass it.

CREATE OR REPLACE FUNCTION ops.log_inserted_candles() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO ops.candle_changes (symbol, minutes)
    SELECT n.symbol, range_agg(tstzrange(n.open_time, n.open_time + interval '1 minute'))
    FROM new_rows AS n
    GROUP BY n.symbol;
    RETURN NULL;
END
$$;

-- Bars contain trade ids, so a minute whose ids arrive late counts as changed. A change of status
-- alone does not affect bars and goes to ops.status_changes.
CREATE OR REPLACE FUNCTION ops.log_updated_candles() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_hashjoin = on
AS $$
BEGIN
    WITH compared AS MATERIALIZED (
        SELECT
            coalesce(o.symbol, n.symbol) AS symbol,
            coalesce(o.open_time, n.open_time) AS open_time,
            (
                o.open, o.high, o.low, o.close, o.volume, o.quote_volume, o.trade_count,
                o.taker_buy_volume, o.taker_buy_quote_volume, o.first_trade_id, o.last_trade_id
            ) IS DISTINCT FROM (
                n.open, n.high, n.low, n.close, n.volume, n.quote_volume, n.trade_count,
                n.taker_buy_volume, n.taker_buy_quote_volume, n.first_trade_id, n.last_trade_id
            ) AS is_another_bar
        FROM old_rows AS o
        FULL JOIN new_rows AS n ON o.symbol = n.symbol AND o.open_time = n.open_time
        WHERE
            o.status IS DISTINCT FROM n.status
            OR (
                o.open, o.high, o.low, o.close, o.volume, o.quote_volume, o.trade_count,
                o.taker_buy_volume, o.taker_buy_quote_volume, o.first_trade_id, o.last_trade_id
            ) IS DISTINCT FROM (
                n.open, n.high, n.low, n.close, n.volume, n.quote_volume, n.trade_count,
                n.taker_buy_volume, n.taker_buy_quote_volume, n.first_trade_id, n.last_trade_id
            )
    ),

    changed AS (
        INSERT INTO ops.candle_changes (symbol, minutes)
        SELECT c.symbol, range_agg(tstzrange(c.open_time, c.open_time + interval '1 minute'))
        FROM compared AS c
        WHERE c.is_another_bar
        GROUP BY c.symbol
    )

    INSERT INTO ops.status_changes (symbol, minutes)
    SELECT c.symbol, range_agg(tstzrange(c.open_time, c.open_time + interval '1 minute'))
    FROM compared AS c
    WHERE NOT c.is_another_bar
    GROUP BY c.symbol;
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION ops.log_deleted_candles() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO ops.candle_changes (symbol, minutes)
    SELECT o.symbol, range_agg(tstzrange(o.open_time, o.open_time + interval '1 minute'))
    FROM old_rows AS o
    GROUP BY o.symbol;
    RETURN NULL;
END
$$;

-- Truncating the parent fires this for each partition.
CREATE OR REPLACE FUNCTION ops.log_truncated_candles() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format(
        'INSERT INTO ops.candle_changes (symbol, minutes) '
        'SELECT c.symbol, tstzmultirange(tstzrange(min(c.open_time), max(c.open_time), ''[]'')) '
        'FROM %s AS c GROUP BY c.symbol',
        tg_relid::regclass
    );
    RETURN NULL;
END
$$;

-- A statement fires the triggers of the table that it names. So partitions have their own, else a
-- change through a partition would leave no trace. ALWAYS: also where session_replication_role is
-- replica, as in some restores.
CREATE OR REPLACE FUNCTION ops.log_changes_of(relation regclass) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    trigger_name text;
    definition text;
BEGIN
    FOR trigger_name, definition IN VALUES
        ('log_inserted', 'AFTER INSERT ON %s REFERENCING NEW TABLE AS new_rows '
            'FOR EACH STATEMENT EXECUTE FUNCTION ops.log_inserted_candles()'),
        ('log_updated', 'AFTER UPDATE ON %s REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows '
            'FOR EACH STATEMENT EXECUTE FUNCTION ops.log_updated_candles()'),
        ('log_deleted', 'AFTER DELETE ON %s REFERENCING OLD TABLE AS old_rows '
            'FOR EACH STATEMENT EXECUTE FUNCTION ops.log_deleted_candles()'),
        ('log_truncated', 'BEFORE TRUNCATE ON %s '
            'FOR EACH STATEMENT EXECUTE FUNCTION ops.log_truncated_candles()')
    LOOP
        CONTINUE WHEN trigger_name = 'log_truncated' AND relation = 'market.candles_1m'::regclass;
        EXECUTE format('CREATE OR REPLACE TRIGGER %I ' || definition, trigger_name, relation);
        EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', relation, trigger_name);
    END LOOP;
END
$$;
COMMENT ON FUNCTION ops.log_changes_of(regclass) IS
'Logs changes of market.candles_1m, or of one of its partitions, in ops.candle_changes and ops.status_changes.';

-- A partition that is attached, detached or dropped changes all its minutes without a statement on them.
CREATE OR REPLACE FUNCTION ops.log_partition_changes() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
AS $$
DECLARE
    changed record;
BEGIN
    FOR changed IN
        WITH attached AS (
            SELECT c.relname::text AS name FROM pg_inherits AS i
            INNER JOIN pg_class AS c ON i.inhrelid = c.oid
            WHERE i.inhparent = 'market.candles_1m'::regclass AND NOT i.inhdetachpending
        ),

        added AS (
            INSERT INTO ops.candle_partitions (name)
            SELECT a.name FROM attached AS a
            ON CONFLICT (name) DO NOTHING
            RETURNING name
        ),

        removed AS (
            DELETE FROM ops.candle_partitions AS p
            WHERE NOT EXISTS (SELECT FROM attached AS a WHERE a.name = p.name)
            RETURNING p.name
        )

        SELECT name, true AS is_added FROM added
        UNION ALL
        SELECT name, false FROM removed
    LOOP
        -- The names are those of ops.ensure_partition(); others have an unknown period.
        IF changed.is_added THEN
            EXECUTE format(
                'INSERT INTO ops.candle_changes (symbol, minutes) '
                'SELECT c.symbol, tstzmultirange(tstzrange(min(c.open_time), max(c.open_time), ''[]'')) '
                'FROM market.%I AS c GROUP BY c.symbol',
                changed.name
            );
        ELSE
            INSERT INTO ops.candle_changes (symbol, minutes)
            SELECT s.symbol, tstzmultirange(period.minutes)
            FROM (
                SELECT k.symbol FROM ops.candle_symbols() AS k (symbol)
                UNION
                SELECT i.symbol FROM market.instruments AS i
                UNION
                SELECT d.symbol FROM ops.coverage AS d
            ) AS s
            CROSS JOIN LATERAL (
                SELECT CASE WHEN changed.name ~ '_y\d{4}m\d{2}$' THEN tstzrange(
                    to_timestamp(right(changed.name, 8), '"y"YYYY"m"MM'),
                    to_timestamp(right(changed.name, 8), '"y"YYYY"m"MM') + interval '1 month'
                ) ELSE tstzrange('1970-01-01', '2100-01-01') END AS minutes
            ) AS period;
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION ops.log_partition_changes IS
'Logs the minutes of partitions of market.candles_1m that were attached, detached or dropped.';

-- Whether a bar is complete depends on outages. An outage of a whole market is logged for each symbol
-- with candles nearby, found by a loose index scan of the partitions of those months.
CREATE OR REPLACE FUNCTION ops.log_outage(
    outage_market text, outage_symbol text, outage_minutes tstzmultirange
)
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
AS $$
DECLARE
    first_month timestamptz := date_trunc('month', coalesce(lower(outage_minutes), '-infinity'));
    last_month timestamptz := date_trunc('month', coalesce(upper(outage_minutes), 'infinity'));
BEGIN
    IF outage_symbol IS NOT NULL THEN
        INSERT INTO ops.candle_changes (symbol, minutes) VALUES (outage_symbol, outage_minutes);
        RETURN;
    END IF;
    INSERT INTO ops.candle_changes (symbol, minutes)
    WITH RECURSIVE seen (symbol) AS (
        (
            SELECT c.symbol FROM market.candles_1m AS c
            WHERE
                c.open_time >= first_month - interval '7 days'
                AND c.open_time < last_month + interval '1 month 7 days'
            ORDER BY c.symbol LIMIT 1
        )
        UNION ALL
        SELECT (
            SELECT c.symbol FROM market.candles_1m AS c
            WHERE
                c.symbol > s.symbol
                AND c.open_time >= first_month - interval '7 days'
                AND c.open_time < last_month + interval '1 month 7 days'
            ORDER BY c.symbol LIMIT 1
        )
        FROM seen AS s WHERE s.symbol IS NOT NULL
    )
    SELECT s.symbol, outage_minutes FROM seen AS s
    WHERE s.symbol IS NOT NULL AND market.market_of(s.symbol) = outage_market;
END
$$;

CREATE OR REPLACE FUNCTION ops.log_outages() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        PERFORM ops.log_outage(n.market, n.symbol, n.minutes) FROM new_rows AS n;
    ELSIF TG_OP = 'DELETE' THEN
        PERFORM ops.log_outage(o.market, o.symbol, o.minutes) FROM old_rows AS o;
    ELSE
        -- removed minutes, then added minutes
        PERFORM ops.log_outage(o.market, o.symbol, o.minutes - coalesce(n.minutes, '{}'))
        FROM old_rows AS o
        LEFT JOIN new_rows AS n
            ON o.id = n.id AND o.market = n.market AND o.symbol IS NOT DISTINCT FROM n.symbol
        WHERE NOT isempty(o.minutes - coalesce(n.minutes, '{}'));
        PERFORM ops.log_outage(n.market, n.symbol, n.minutes - coalesce(o.minutes, '{}'))
        FROM new_rows AS n
        LEFT JOIN old_rows AS o
            ON n.id = o.id AND n.market = o.market AND n.symbol IS NOT DISTINCT FROM o.symbol
        WHERE NOT isempty(n.minutes - coalesce(o.minutes, '{}'));
    END IF;
    RETURN NULL;
END
$$;

-- A bar in which two listings of a ticker meet contains only the minutes of the later one. A new or
-- changed listing therefore changes the bars of the first minute after each end of a listing.
CREATE OR REPLACE FUNCTION ops.log_relisting() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    subject text := CASE WHEN TG_OP = 'DELETE' THEN OLD.symbol ELSE NEW.symbol END;
    once_ended timestamptz := CASE WHEN TG_OP = 'INSERT' THEN NULL ELSE OLD.listed_to END;
BEGIN
    INSERT INTO ops.candle_changes (symbol, minutes)
    SELECT subject, range_agg(tstzrange(f.open_time, f.open_time + interval '1 minute'))
    FROM (
        SELECT i.listed_to FROM market.instruments AS i
        WHERE i.symbol = subject AND i.listed_to IS NOT NULL
        UNION
        SELECT once_ended WHERE once_ended IS NOT NULL
    ) AS e
    CROSS JOIN LATERAL (
        SELECT c.open_time FROM market.candles_1m AS c
        WHERE
            c.symbol = subject
            AND c.open_time >= date_bin('1 minute', e.listed_to, '2001-01-01 00:00:00+00')
        ORDER BY c.open_time LIMIT 1
    ) AS f
    HAVING count(*) > 0;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION ops.log_relisting() IS
'Trigger: logs the first minute after each end of a listing as changed.';

CREATE OR REPLACE FUNCTION ops.log_trades() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        INSERT INTO ops.trade_changes (dataset, symbol, day, minutes)
        SELECT TG_TABLE_NAME, o.symbol, o.day, range_agg(ops.minute_of(o.trade_time))
        FROM old_rows AS o GROUP BY o.symbol, o.day;
    ELSIF TG_OP = 'UPDATE' THEN
        INSERT INTO ops.trade_changes (dataset, symbol, day, minutes)
        SELECT TG_TABLE_NAME, c.symbol, c.day, range_agg(ops.minute_of(c.trade_time))
        FROM (
            SELECT o.symbol, o.day, o.trade_time FROM old_rows AS o
            UNION ALL
            SELECT n.symbol, n.day, n.trade_time FROM new_rows AS n
        ) AS c
        GROUP BY c.symbol, c.day;
    ELSE
        -- BEFORE TRUNCATE: there is no transition table
        EXECUTE format(
            'INSERT INTO ops.trade_changes (dataset, symbol, day, minutes) '
            'SELECT %L, t.symbol, t.day, range_agg(DISTINCT ops.minute_of(t.trade_time)) '
            'FROM market.%I AS t GROUP BY t.symbol, t.day', TG_TABLE_NAME, TG_TABLE_NAME
        );
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION ops.log_trades() IS 'Trigger: logs minutes with deleted or updated trades in ops.trade_changes.';

-- Ids at or above the next transaction id came with a restore from another cluster: not new.
CREATE OR REPLACE FUNCTION ops.changed_trades(seen pg_snapshot)
RETURNS TABLE (symbol text, day date, minutes tstzmultirange)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
-- Forces the BRIN index: statistics of a partition that is being filled are out of date.
SET enable_seqscan = off
SET enable_indexscan = off
SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    from_id bigint := pg_snapshot_xmin(seen)::text::bigint;
    to_id bigint := pg_snapshot_xmax(pg_current_snapshot())::text::bigint;
    seen_ids txid_snapshot := seen::text::txid_snapshot;
BEGIN
    RETURN QUERY
    SELECT c.symbol, c.day, range_agg(c.minutes)
    FROM (
        SELECT n.symbol, n.day, range_agg(ops.minute_of(n.minute)) AS minutes
        FROM (
            SELECT DISTINCT
                t.symbol, t.day,
                date_bin('1 minute', t.trade_time, '2001-01-01 00:00:00+00') AS minute
            FROM market.agg_trades AS t
            WHERE
                t.written_by >= from_id AND t.written_by < to_id
                AND NOT txid_visible_in_snapshot(t.written_by, seen_ids)
            UNION
            SELECT
                t.symbol, t.day,
                date_bin('1 minute', t.trade_time, '2001-01-01 00:00:00+00') AS minute
            FROM market.trades AS t
            WHERE
                t.written_by >= from_id AND t.written_by < to_id
                AND NOT txid_visible_in_snapshot(t.written_by, seen_ids)
        ) AS n
        GROUP BY n.symbol, n.day
        UNION ALL
        SELECT g.symbol, g.day, g.minutes FROM ops.trade_changes AS g
        WHERE
            g.changed_by >= pg_snapshot_xmin(seen)
            AND g.changed_by < pg_snapshot_xmax(pg_current_snapshot())
            AND NOT pg_visible_in_snapshot(g.changed_by, seen)
    ) AS c
    GROUP BY c.symbol, c.day;
END
$$;
COMMENT ON FUNCTION ops.changed_trades(pg_snapshot) IS
'Minutes, by symbol and UTC day, whose captured trades were inserted, deleted or updated since a snapshot.';

-- In the table of the marts' cursors, so that pruning keeps changes that the checks have not read.
-- A function, because the jobs may advance only this cursor.
CREATE OR REPLACE FUNCTION ops.advance_quality_cursor(seen pg_snapshot) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO ops.build_cursors AS c (relation, target, system_identifier, snapshot, built_at)
    VALUES ('quality.candles', 'quality', ops.system_identifier(), seen, clock_timestamp())
    ON CONFLICT (relation, target) DO UPDATE SET
        system_identifier = excluded.system_identifier,
        snapshot = excluded.snapshot,
        built_at = excluded.built_at
$$;
COMMENT ON FUNCTION ops.advance_quality_cursor(pg_snapshot) IS
'Advances the cursor of the quality checks in the change log to a snapshot.';
