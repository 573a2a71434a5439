-- Change log and the cursors of its readers; functions/change_log.sql has the triggers' functions.

CREATE TABLE ops.candle_changes (
    changed_by xid8 NOT NULL DEFAULT pg_current_xact_id(),
    symbol text COLLATE "C" NOT NULL,
    minutes tstzmultirange NOT NULL
);
CREATE INDEX candle_changes_changed_by ON ops.candle_changes (changed_by);
-- For the live views, which read the changes of one symbol.
CREATE INDEX candle_changes_symbol ON ops.candle_changes (symbol, changed_by);

CREATE TABLE ops.status_changes (
    changed_by xid8 NOT NULL DEFAULT pg_current_xact_id(),
    symbol text COLLATE "C" NOT NULL,
    minutes tstzmultirange NOT NULL
);
CREATE INDEX status_changes_changed_by ON ops.status_changes (changed_by);

CREATE TABLE ops.trade_changes (
    changed_by xid8 NOT NULL DEFAULT pg_current_xact_id(),
    dataset text COLLATE "C" NOT NULL,
    symbol text COLLATE "C" NOT NULL,
    day date NOT NULL,
    minutes tstzmultirange NOT NULL
);
CREATE INDEX trade_changes_changed_by ON ops.trade_changes (changed_by);

CREATE TABLE ops.session_changes (
    changed_by xid8 NOT NULL DEFAULT pg_current_xact_id(),
    relation text COLLATE "C" NOT NULL,
    symbol text COLLATE "C",
    session date,
    minutes tstzmultirange
);
CREATE INDEX session_changes_changed_by ON ops.session_changes (changed_by);

CREATE TABLE ops.build_cursors (
    relation text COLLATE "C" NOT NULL,
    target text COLLATE "C" NOT NULL,
    system_identifier text COLLATE "C" NOT NULL,
    snapshot pg_snapshot NOT NULL,
    built_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (relation, target)
);

-- Partitions whose rows the log knows.
CREATE TABLE ops.candle_partitions (
    name text COLLATE "C" PRIMARY KEY
);

-- Also in sessions whose session_replication_role is replica.
DO $$
DECLARE
    logged record;
BEGIN
    FOR logged IN
        SELECT t.tgrelid::regclass AS relation, t.tgname AS name FROM pg_trigger AS t
        WHERE NOT t.tgisinternal AND t.tgname LIKE 'log\_%'
    LOOP
        EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', logged.relation, logged.name);
    END LOOP;
END
$$;

DO $$
BEGIN
    CREATE EVENT TRIGGER candelabra_partitions ON ddl_command_end
    WHEN tag IN ('ALTER TABLE', 'DROP TABLE')
    EXECUTE FUNCTION ops.log_partition_changes();
    ALTER EVENT TRIGGER candelabra_partitions ENABLE ALWAYS;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE WARNING 'only a superuser may create event triggers: partitions of market.candles_1m that '
        'are attached, detached or dropped by hand are found only by the DAG audit_marts';
END
$$;
