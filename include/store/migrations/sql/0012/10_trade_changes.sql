-- Which trades a build has not seen. A trigger on insert with a transition table, as candles have
-- it, would take COPY into a partitioned table its way of writing many rows at once: a sixth of its
-- speed. So a row tells itself which transaction wrote it, and a block range index, which costs next
-- to nothing in rows that come in order, finds those of the last few. What goes or is changed by
-- hand, which is rare, is logged by triggers.

-- txid_current() is pg_current_xact_id() as a number, for which there is a block range index. Rows
-- that are there already get the transaction of this migration, without being rewritten.
ALTER TABLE market.agg_trades ADD COLUMN written_by bigint DEFAULT txid_current();
ALTER TABLE market.trades ADD COLUMN written_by bigint DEFAULT txid_current();
COMMENT ON COLUMN market.agg_trades.written_by IS
'Transaction that wrote the row; means nothing on another cluster.';
COMMENT ON COLUMN market.trades.written_by IS
'Transaction that wrote the row; means nothing on another cluster.';
CREATE INDEX agg_trades_written ON market.agg_trades USING brin (written_by, trade_time)
WITH (pages_per_range = 32, autosummarize = on);
CREATE INDEX trades_written ON market.trades USING brin (written_by, trade_time)
WITH (pages_per_range = 32, autosummarize = on);

CREATE TABLE ops.trade_changes (
    changed_by xid8 NOT NULL DEFAULT pg_current_xact_id(),
    dataset text COLLATE "C" NOT NULL,
    symbol text COLLATE "C" NOT NULL,
    day date NOT NULL,
    minutes tstzmultirange NOT NULL
);
CREATE INDEX trade_changes_changed_by ON ops.trade_changes (changed_by);
COMMENT ON TABLE ops.trade_changes IS
'Minutes of which a transaction deleted or changed trades; those it inserted say so themselves. Read through ops.changed_trades().';
COMMENT ON COLUMN ops.trade_changes.changed_by IS 'The transaction.';
COMMENT ON COLUMN ops.trade_changes.dataset IS 'agg_trades or trades.';
COMMENT ON COLUMN ops.trade_changes.symbol IS 'Whose trades.';
COMMENT ON COLUMN ops.trade_changes.day IS 'UTC day of the trades.';
COMMENT ON COLUMN ops.trade_changes.minutes IS 'Minutes of that day.';

CREATE FUNCTION ops.log_trades() RETURNS trigger
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
        -- before TRUNCATE, for which there is no table of rows
        EXECUTE format(
            'INSERT INTO ops.trade_changes (dataset, symbol, day, minutes) '
            'SELECT %L, t.symbol, t.day, range_agg(DISTINCT ops.minute_of(t.trade_time)) '
            'FROM market.%I AS t GROUP BY t.symbol, t.day', TG_TABLE_NAME, TG_TABLE_NAME
        );
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION ops.log_trades() IS 'Trigger: notes deleted and changed trades in ops.trade_changes.';

CREATE FUNCTION ops.minute_of(moment timestamptz) RETURNS tstzrange
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN tstzrange(
    date_bin('1 minute', moment, '2001-01-01 00:00:00+00'),
    date_bin('1 minute', moment, '2001-01-01 00:00:00+00') + interval '1 minute'
);
COMMENT ON FUNCTION ops.minute_of(timestamptz) IS 'The minute that holds a moment.';

CREATE TRIGGER log_updated AFTER UPDATE ON market.agg_trades
REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
FOR EACH STATEMENT EXECUTE FUNCTION ops.log_trades();

CREATE TRIGGER log_deleted AFTER DELETE ON market.agg_trades
REFERENCING OLD TABLE AS old_rows
FOR EACH STATEMENT EXECUTE FUNCTION ops.log_trades();

CREATE TRIGGER log_truncated BEFORE TRUNCATE ON market.agg_trades
FOR EACH STATEMENT EXECUTE FUNCTION ops.log_trades();

CREATE TRIGGER log_updated AFTER UPDATE ON market.trades
REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
FOR EACH STATEMENT EXECUTE FUNCTION ops.log_trades();

CREATE TRIGGER log_deleted AFTER DELETE ON market.trades
REFERENCING OLD TABLE AS old_rows
FOR EACH STATEMENT EXECUTE FUNCTION ops.log_trades();

CREATE TRIGGER log_truncated BEFORE TRUNCATE ON market.trades
FOR EACH STATEMENT EXECUTE FUNCTION ops.log_trades();

-- Ids from the present cluster's future came with a restore from another one.
CREATE FUNCTION ops.changed_trades(seen pg_snapshot)
RETURNS TABLE (symbol text, day date, minutes tstzmultirange)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
-- whatever the statistics say of a partition that is being filled
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
'Which minutes of which symbol and UTC day have trades that came, went or changed since a snapshot.';

CREATE TABLE ops.session_changes (
    changed_by xid8 NOT NULL DEFAULT pg_current_xact_id(),
    relation text COLLATE "C" NOT NULL,
    symbol text COLLATE "C",
    session date
);
CREATE INDEX session_changes_changed_by ON ops.session_changes (changed_by);
COMMENT ON TABLE ops.session_changes IS
'Which sessions a build of a mart of trades rebuilt; the work list of the marts built from it. Read as ops.candle_changes.';
COMMENT ON COLUMN ops.session_changes.changed_by IS 'Transaction of the build.';
COMMENT ON COLUMN ops.session_changes.relation IS 'The mart that was built, with its schema.';
COMMENT ON COLUMN ops.session_changes.symbol IS 'Of the session; null: all of all symbols.';
COMMENT ON COLUMN ops.session_changes.session IS 'UTC day; null: all of all symbols.';
