-- The writer that needs a partition creates it. ATTACH blocks neither readers nor writers of the
-- other partitions; CREATE … PARTITION OF would block all of them.

CREATE OR REPLACE FUNCTION ops.ensure_partition(relation regclass, moment timestamptz) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
    parent text := (SELECT relname FROM pg_class WHERE oid = relation);
    has_log boolean := relation = 'market.candles_1m'::regclass;
    by_month boolean := has_log OR relation::text = ANY (ARRAY[
        'market.mark_prices_1m', 'market.index_prices_1m', 'market.premium_index_1m'
    ]);
    lower_bound timestamp;
    upper_bound timestamp;
    partition text;
BEGIN
    IF NOT by_month AND relation <> ALL (ARRAY[
        'market.agg_trades', 'market.trades', 'market.book_tickers', 'market.liquidations',
        'market.depth_diffs', 'market.depth_snapshots'
    ]::regclass[]) THEN
        RAISE EXCEPTION '% is not a partitioned table of Candelabra', relation
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF moment IS NULL OR NOT isfinite(moment) THEN
        RAISE EXCEPTION '% has no partition for the time %', relation, moment
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF by_month THEN
        lower_bound := date_trunc('month', moment AT TIME ZONE 'UTC');
        upper_bound := lower_bound + interval '1 month';
        partition := parent || to_char(lower_bound, '"_y"YYYY"m"MM');
    ELSE
        lower_bound := date_trunc('day', moment AT TIME ZONE 'UTC');
        upper_bound := lower_bound + interval '1 day';
        partition := parent || to_char(lower_bound, '"_y"YYYY"m"MM"d"DD');
    END IF;
    IF to_regclass(format('market.%I', partition)) IS NOT NULL THEN
        -- A commit is visible shortly before other sessions' caches are invalidated. A session that
        -- finds the partition in between does not know that the parent has it, and its insert
        -- fails with "no partition of relation found for row". Its creator holds the partition's
        -- lock until the invalidation is sent, so taking the lock waits for it. ROW EXCLUSIVE:
        -- writers do not wait for each other.
        BEGIN
            EXECUTE format('LOCK TABLE market.%I IN ROW EXCLUSIVE MODE', partition);
            RETURN partition;
        EXCEPTION WHEN undefined_table THEN
            NULL; -- dropped since the check
        END;
    END IF;

    -- ATTACH needs this lock anyway. Taken before the check, it makes a second writer wait until the
    -- first has committed. An advisory lock is not enough: only a table lock refreshes the cache of
    -- to_regclass().
    EXECUTE format('LOCK TABLE %s IN SHARE UPDATE EXCLUSIVE MODE', relation);
    IF to_regclass(format('market.%I', partition)) IS NOT NULL THEN
        RETURN partition;
    END IF;
    EXECUTE format(
        'CREATE TABLE market.%I (LIKE %s INCLUDING ALL EXCLUDING COMMENTS)', partition, relation
    );
    IF has_log THEN
        PERFORM ops.log_changes_of(format('market.%I', partition)::regclass);
    END IF;
    EXECUTE format(
        'ALTER TABLE %s ATTACH PARTITION market.%I FOR VALUES FROM (%L) TO (%L)',
        relation, partition,
        CASE WHEN by_month THEN (lower_bound AT TIME ZONE 'UTC')::text ELSE lower_bound::date::text END,
        CASE WHEN by_month THEN (upper_bound AT TIME ZONE 'UTC')::text ELSE upper_bound::date::text END
    );
    RETURN partition;
END
$$;
COMMENT ON FUNCTION ops.ensure_partition(regclass, timestamptz) IS
'Creates the partition of candles_1m or of the prices of a minute (month) or of a table of raw capture (UTC day) for a moment, unless it exists. Returns its name.';
