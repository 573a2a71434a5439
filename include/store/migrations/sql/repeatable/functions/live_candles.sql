-- Open candles. One of the tables ops.live_candles_<number> has them, ops.live_candle_table says which.
-- These functions are the only access. They run as the owner, so that tables created by a rotation
-- need no grants.

CREATE OR REPLACE FUNCTION market.live_candles_of(of_symbol text)
RETURNS TABLE (
    symbol text, open_time timestamptz, open numeric, high numeric, low numeric, close numeric,
    volume numeric, quote_volume numeric, trade_count bigint,
    taker_buy_volume numeric, taker_buy_quote_volume numeric,
    first_trade_id bigint, last_trade_id bigint,
    is_closed boolean, event_time timestamptz, updated_at timestamptz
)
LANGUAGE plpgsql STABLE SECURITY DEFINER PARALLEL RESTRICTED ROWS 100
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $$
DECLARE
    relation text := (SELECT format('ops.live_candles_%s', t.number) FROM ops.live_candle_table AS t);
BEGIN
    IF of_symbol IS NULL THEN
        RETURN QUERY EXECUTE format('SELECT * FROM %s', relation);
    ELSE
        RETURN QUERY EXECUTE format('SELECT * FROM %s AS l WHERE l.symbol = $1', relation)
        USING of_symbol;
    END IF;
END
$$;
COMMENT ON FUNCTION market.live_candles_of(text) IS
'Rows of market.live_candles of a symbol, found by index; null: of all symbols.';


CREATE OR REPLACE FUNCTION ops.lock_live_candles() RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    relation text;
    locked text;
BEGIN
    -- A rotation may finish between reading the number and taking the lock.
    LOOP
        relation := (SELECT format('ops.live_candles_%s', t.number) FROM ops.live_candle_table AS t);
        IF relation = locked THEN
            RETURN relation;
        END IF;
        EXECUTE format('LOCK TABLE %s IN ROW EXCLUSIVE MODE', relation);
        locked := relation;
    END LOOP;
END
$$;
COMMENT ON FUNCTION ops.lock_live_candles() IS
'Name of the table with the open candles, locked against a rotation until the transaction ends.';


CREATE OR REPLACE FUNCTION ops.write_live_candles(
    symbols text [], open_times timestamptz [],
    opens numeric [], highs numeric [], lows numeric [], closes numeric [],
    volumes numeric [], quote_volumes numeric [], trade_counts bigint [],
    taker_buy_volumes numeric [], taker_buy_quote_volumes numeric [],
    first_trade_ids bigint [], last_trade_ids bigint [],
    are_closed boolean [], event_times timestamptz []
)
RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $$
DECLARE
    relation text := ops.lock_live_candles();
    late bigint [];
    written bigint;
BEGIN
    -- Rows whose minute is already stored arrive late and are skipped: the view would hide them, and
    -- nothing would remove them. Apart from the INSERT, this plan of all partitions is cached.
    late := ARRAY(
        SELECT r.number FROM unnest(symbols, open_times) WITH ORDINALITY AS r (symbol, open_time, number)
        WHERE EXISTS (
            SELECT FROM market.candles_1m AS c
            WHERE c.symbol = r.symbol AND c.open_time = r.open_time
        )
    );
    -- In primary-key order, so that two streamers cannot deadlock.
    EXECUTE format(
        $write$
        INSERT INTO %s AS l
        SELECT
            r.symbol, r.open_time, r.open, r.high, r.low, r.close, r.volume, r.quote_volume,
            r.trade_count, r.taker_buy_volume, r.taker_buy_quote_volume,
            r.first_trade_id, r.last_trade_id, r.is_closed, r.event_time, clock_timestamp()
        FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
            WITH ORDINALITY AS r (
                symbol, open_time, open, high, low, close, volume, quote_volume, trade_count,
                taker_buy_volume, taker_buy_quote_volume, first_trade_id, last_trade_id,
                is_closed, event_time, number
            )
        WHERE NOT r.number = ANY($16)
        ORDER BY r.symbol COLLATE "C", r.open_time
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
            is_closed = l.is_closed OR excluded.is_closed,
            event_time = greatest(l.event_time, excluded.event_time),
            updated_at = excluded.updated_at
        WHERE
            coalesce(excluded.last_trade_id, -1) > coalesce(l.last_trade_id, -1)
            OR (
                coalesce(excluded.last_trade_id, -1) = coalesce(l.last_trade_id, -1)
                AND excluded.is_closed AND NOT l.is_closed
            )
        $write$,
        relation
    )
    USING
        symbols, open_times, opens, highs, lows, closes, volumes, quote_volumes, trade_counts,
        taker_buy_volumes, taker_buy_quote_volumes, first_trade_ids, last_trade_ids,
        are_closed, event_times, late;
    GET DIAGNOSTICS written = ROW_COUNT;
    RETURN written;
END
$$;
COMMENT ON FUNCTION ops.write_live_candles IS
'Writes open candles given as arrays; a stored row is replaced only by a later state. Returns the number of rows written.';


CREATE OR REPLACE FUNCTION ops.delete_live_candles(symbols text [], open_times timestamptz [])
RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    relation text := ops.lock_live_candles();
    deleted bigint;
BEGIN
    -- Locked in the order in which open candles are written, else two streamers of the same symbols
    -- deadlock at the end of a minute.
    EXECUTE format(
        $delete$
        WITH locked AS MATERIALIZED (
            SELECT l.symbol, l.open_time FROM %1$s AS l
            INNER JOIN unnest($1, $2) AS k (symbol, open_time)
                ON l.symbol = k.symbol AND l.open_time = k.open_time
            ORDER BY l.symbol COLLATE "C", l.open_time
            FOR UPDATE OF l
        )
        DELETE FROM %1$s AS l
        USING locked AS k
        WHERE l.symbol = k.symbol AND l.open_time = k.open_time
        $delete$,
        relation
    )
    USING symbols, open_times;
    GET DIAGNOSTICS deleted = ROW_COUNT;
    RETURN deleted;
END
$$;
COMMENT ON FUNCTION ops.delete_live_candles(text [], timestamptz []) IS
'Deletes these minutes from market.live_candles. Returns the number of rows deleted.';


CREATE OR REPLACE FUNCTION ops.empty_live_candle_table(used_number integer) RETURNS integer
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET client_min_messages = warning
AS $$
DECLARE
    -- In turns, so that a table is emptied half a minute after it was left: queries that began before
    -- still find their rows. The others are for the time when transactions lock all of these.
    usual_tables CONSTANT integer := 16;
    max_tables CONSTANT integer := 64;
    number integer;
    relation text;
BEGIN
    FOR step IN 1 .. max_tables - 1 LOOP
        number := CASE
            WHEN step <= usual_tables THEN (used_number + step - 1) % usual_tables + 1 ELSE step + 1
        END;
        CONTINUE WHEN number = used_number;
        relation := format('ops.live_candles_%s', number);
        IF to_regclass(relation) IS NULL THEN
            EXECUTE format(
                'CREATE UNLOGGED TABLE %s (LIKE ops.live_candles_1 INCLUDING ALL EXCLUDING COMMENTS) '
                'WITH (fillfactor = 10, autovacuum_vacuum_cost_delay = 0)',
                relation
            );
            RETURN number;
        END IF;
        -- A transaction that has read a table locks it until it ends.
        BEGIN
            EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE NOWAIT', relation);
            EXECUTE format('TRUNCATE %s', relation);
            RETURN number;
        EXCEPTION WHEN lock_not_available THEN
            NULL;
        END;
    END LOOP;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION ops.empty_live_candle_table(integer) IS
'Number of a table for open candles that this transaction has emptied or created; null if others use all of them.';


CREATE OR REPLACE FUNCTION ops.oldest_snapshot_s() RETURNS double precision
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
RETURN (
    SELECT coalesce(max(extract(epoch FROM clock_timestamp() - holder.since)), 0)
    FROM (
        SELECT a.xact_start AS since FROM pg_stat_activity AS a
        WHERE
            a.datname = current_database()
            AND a.backend_type = 'client backend'
            AND coalesce(a.backend_xmin, a.backend_xid) IS NOT NULL
        UNION ALL
        SELECT p.prepared FROM pg_prepared_xacts AS p
        WHERE p.database = current_database()
    ) AS holder
);
COMMENT ON FUNCTION ops.oldest_snapshot_s() IS
'Age in seconds of the oldest transaction for which PostgreSQL keeps replaced rows of this database; 0 if there is none. Transactions that the owner may not see are not counted.';


CREATE OR REPLACE FUNCTION ops.rotate_live_candles(
    OUT table_bytes bigint, OUT snapshot_s double precision
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    current ops.live_candle_table := (SELECT t FROM ops.live_candle_table AS t);
    is_full boolean;
BEGIN
    table_bytes := pg_relation_size(format('ops.live_candles_%s', current.number)::regclass);
    snapshot_s := ops.oldest_snapshot_s();
    -- A page has room for ten versions of its rows, two seconds and a half of a busy symbol. The next
    -- version goes to another page, and every search of the index then meets both.
    is_full :=
        table_bytes > 256 * 1024
        AND clock_timestamp() - current.copied_at > interval '2 seconds'
        AND (table_bytes > 4 * current.copied_bytes OR snapshot_s > 2);
    IF current.next_number IS NOT NULL AND NOT is_full THEN
        RETURN;
    END IF;
    -- Nothing below waits: if others use a table now, a later call tries again.
    SELECT t.* INTO current FROM ops.live_candle_table AS t WHERE t = current FOR UPDATE NOWAIT;
    IF current.number IS NULL THEN
        RETURN; -- another streamer has just rotated
    END IF;
    -- In two calls of a few milliseconds each.
    IF current.next_number IS NULL THEN
        UPDATE ops.live_candle_table AS t
        SET next_number = ops.empty_live_candle_table(current.number);
        RETURN;
    END IF;
    EXECUTE format('LOCK TABLE ops.live_candles_%s IN SHARE MODE NOWAIT', current.number);
    EXECUTE format(
        'INSERT INTO ops.live_candles_%s SELECT * FROM ops.live_candles_%s',
        current.next_number, current.number
    );
    table_bytes := pg_relation_size(format('ops.live_candles_%s', current.next_number)::regclass);
    UPDATE ops.live_candle_table AS t
    SET
        number = current.next_number,
        next_number = NULL,
        copied_bytes = table_bytes,
        copied_at = clock_timestamp();
EXCEPTION WHEN lock_not_available THEN
    NULL;
END
$$;
COMMENT ON FUNCTION ops.rotate_live_candles() IS
'Moves the open candles to another table before replaced rows fill theirs. Returns the bytes of the table in use, and ops.oldest_snapshot_s().';
