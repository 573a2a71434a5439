-- Partitions are made by the writer that needs them. ATTACH takes a lock that lets readers and
-- writers of the other partitions go on; CREATE … PARTITION OF would stop them all.

CREATE OR REPLACE FUNCTION ops.ensure_partition(relation regclass, moment timestamptz) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
    parent text := (SELECT relname FROM pg_class WHERE oid = relation);
    by_month boolean := relation = 'market.candles_1m'::regclass;
    lower_bound timestamp;
    upper_bound timestamp;
    partition text;
BEGIN
    IF NOT by_month AND relation <> ALL (ARRAY[
        'market.agg_trades', 'market.trades', 'market.book_tickers'
    ]::regclass[]) THEN
        RAISE EXCEPTION '% is not a table that Candelabra partitions', relation
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF moment IS NULL OR NOT isfinite(moment) THEN
        RAISE EXCEPTION 'no partition of % can hold the moment %', relation, moment
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
        -- Of the partition: its writers do not wait for each other, as they would at the parent's.
        BEGIN
            EXECUTE format('LOCK TABLE market.%I IN ROW EXCLUSIVE MODE', partition);
            RETURN partition;
        EXCEPTION WHEN undefined_table THEN
            NULL; -- it was dropped meanwhile
        END;
    END IF;

    -- The lock that ATTACH needs anyway, taken first: a second writer waits here until the first
    -- has committed, and then finds the partition. (After an advisory lock it would not: only
    -- taking a table's lock refreshes the cache in which the look-up above was remembered.)
    EXECUTE format('LOCK TABLE %s IN SHARE UPDATE EXCLUSIVE MODE', relation);
    IF to_regclass(format('market.%I', partition)) IS NOT NULL THEN
        RETURN partition;
    END IF;
    EXECUTE format(
        'CREATE TABLE market.%I (LIKE %s INCLUDING ALL EXCLUDING COMMENTS)', partition, relation
    );
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
'Makes the partition of candles_1m (month), agg_trades, trades or book_tickers (day) that holds the moment, if missing, and returns its name.';
