-- Captured rows never change, so count and keys show whether rows were added or deleted.
CREATE OR REPLACE FUNCTION ops.raw_fingerprint(of_dataset text, of_day date)
RETURNS TABLE (rows bigint, fingerprint numeric)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    id_column text := CASE of_dataset
        WHEN 'agg_trades' THEN 'agg_trade_id'
        WHEN 'trades' THEN 'trade_id'
        WHEN 'book_tickers' THEN 'update_id'
        WHEN 'liquidations' THEN 'liquidation_id'
        WHEN 'depth_diffs' THEN 'last_update_id'
        WHEN 'depth_snapshots' THEN 'last_update_id'
    END;
BEGIN
    IF id_column IS NULL THEN
        RAISE EXCEPTION '% is not a table of the raw capture', of_dataset
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN QUERY EXECUTE format(
        'SELECT count(*), coalesce(sum(hashtextextended(symbol, %I)), 0) '
        'FROM market.%I WHERE day = $1', id_column, of_dataset
    ) USING of_day;
END
$$;
COMMENT ON FUNCTION ops.raw_fingerprint(text, date) IS
'Number of captured rows of a UTC day and the sum of the hashes of their keys. Equal fingerprints mean equal rows.';

-- The only way for the jobs to drop a table: only partitions whose rows are archived.
CREATE OR REPLACE FUNCTION ops.drop_archived_partition(of_dataset text, of_day date) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
-- DROP TABLE locks the parent, and all its readers and writers queue behind: give up early.
SET lock_timeout = '3s'
AS $$
DECLARE
    partition text := of_dataset || to_char(of_day, '"_y"YYYY"m"MM"d"DD');
    archived ops.archived_partitions;
    stored record;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'drop_archived_partition needs isolation level read committed: an older snapshot does not see the newest rows'
            USING ERRCODE = 'invalid_transaction_state';
    END IF;
    -- Refuses an unknown dataset. The partition has the name that ops.ensure_partition() gives.
    PERFORM ops.raw_fingerprint(of_dataset, 'infinity'::date);
    IF NOT EXISTS (
        SELECT FROM pg_inherits
        WHERE
            inhparent = format('market.%I', of_dataset)::regclass
            AND inhrelid = to_regclass(format('market.%I', partition))
    ) THEN
        RETURN false;
    END IF;
    -- Blocks writers of this day only; no readers.
    EXECUTE format('LOCK TABLE market.%I IN SHARE MODE', partition);
    SELECT f.rows, f.fingerprint INTO STRICT stored
    FROM ops.raw_fingerprint(of_dataset, of_day) AS f;
    SELECT a.* INTO archived FROM ops.archived_partitions AS a
    WHERE a.dataset = of_dataset AND a.day = of_day
    FOR UPDATE;
    IF stored.rows > 0
        AND (archived.rows, archived.fingerprint) IS DISTINCT FROM (stored.rows, stored.fingerprint)
    THEN
        RAISE EXCEPTION 'market.% changed since its archive was written: it has % rows, the archive %; archive the day again',
            partition, stored.rows, coalesce(archived.rows, 0)
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    EXECUTE format('DROP TABLE market.%I', partition);
    UPDATE ops.archived_partitions AS a
    SET dropped_at = clock_timestamp(), kept_until = NULL
    WHERE a.dataset = of_dataset AND a.day = of_day AND a.dropped_at IS NULL;
    RETURN true;
END
$$;
COMMENT ON FUNCTION ops.drop_archived_partition(text, date) IS
'Drops the partition of a UTC day if it is empty or equals its archive. Returns false if there is no partition; raises an error if rows differ.';
