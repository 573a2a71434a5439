-- Who may do what. Applied on every migration, so that a new table or function cannot be
-- forgotten and a restored database gets its grants back.
DO $$
BEGIN
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format(
        'GRANT CONNECT, TEMPORARY ON DATABASE %I TO '
        'candelabra_streamer, candelabra_jobs, candelabra_dbt',
        current_database()
    );
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO candelabra_reader', current_database());
    -- An ordinary owner hands a schema over only if the new owner may create schemas.
    IF to_regnamespace('marts') IS NULL OR to_regnamespace('marts_audit') IS NULL THEN
        EXECUTE format('GRANT CREATE ON DATABASE %I TO candelabra_dbt', current_database());
        CREATE SCHEMA IF NOT EXISTS marts AUTHORIZATION candelabra_dbt;
        CREATE SCHEMA IF NOT EXISTS marts_audit AUTHORIZATION candelabra_dbt;
        EXECUTE format('REVOKE CREATE ON DATABASE %I FROM candelabra_dbt', current_database());
    END IF;
END
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA market, ops, accounts FROM PUBLIC;

GRANT USAGE ON SCHEMA market, ops
TO candelabra_streamer, candelabra_jobs, candelabra_dbt, candelabra_reader;
GRANT USAGE ON SCHEMA marts, marts_audit TO candelabra_jobs, candelabra_reader;
-- Not on partitions: writers that went past the parent would also go past the change log.
DO $$
DECLARE
    relation regclass;
BEGIN
    FOR relation IN
        SELECT c.oid FROM pg_class AS c
        WHERE
            c.relnamespace IN ('market'::regnamespace, 'ops'::regnamespace)
            AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition
    LOOP
        EXECUTE format(
            'GRANT SELECT ON %s TO '
            'candelabra_streamer, candelabra_jobs, candelabra_dbt, candelabra_reader',
            relation
        );
    END LOOP;
END
$$;
GRANT EXECUTE ON FUNCTION
market.market_of(text),
ops.system_identifier(),
ops.stored_minutes(text),
ops.candle_symbols(),
ops.candle_evidence(text, timestamptz, timestamptz),
ops.suspected_outages(timestamptz, timestamptz, integer, integer)
TO candelabra_streamer, candelabra_jobs, candelabra_dbt, candelabra_reader;

-- Writers of candles. The streamer cannot delete one; nobody but the owner can truncate or drop.
GRANT INSERT, UPDATE ON
market.candles_1m, ops.discrepancies, ops.coverage, ops.gaps, ops.outages
TO candelabra_streamer, candelabra_jobs;
GRANT INSERT, UPDATE, DELETE ON market.live_candles TO candelabra_streamer, candelabra_jobs;
GRANT INSERT ON market.agg_trades, market.trades, market.book_tickers
TO candelabra_streamer, candelabra_jobs;
GRANT INSERT, UPDATE ON market.instruments TO candelabra_streamer, candelabra_jobs;
GRANT EXECUTE ON FUNCTION
ops.ensure_partition(regclass, timestamptz),
ops.merge_candidates(),
ops.store_candles,
ops.discard_known_candidates(timestamptz, timestamptz),
ops.acquire_weight(text, integer, integer),
ops.report_weight(text, integer, integer, timestamptz)
TO candelabra_streamer, candelabra_jobs;

GRANT DELETE ON
market.candles_1m, market.agg_trades, market.trades, market.book_tickers, market.instruments,
ops.coverage, ops.gaps, ops.outages, ops.discrepancies
TO candelabra_jobs;
GRANT INSERT, UPDATE, DELETE ON
ops.dump_files, ops.rejected_rows, ops.quality_results, ops.quality_runs
TO candelabra_jobs;
GRANT EXECUTE ON FUNCTION ops.advance_quality_cursor(pg_snapshot) TO candelabra_jobs;
GRANT INSERT, UPDATE ON ops.archived_partitions TO candelabra_jobs;
GRANT EXECUTE ON FUNCTION
ops.raw_fingerprint(text, date),
ops.drop_archived_partition(text, date)
TO candelabra_jobs;

-- dbt keeps its own cursors and prunes the work list that it alone reads.
GRANT INSERT, UPDATE, DELETE ON ops.build_cursors TO candelabra_dbt;
GRANT DELETE ON ops.candle_changes, ops.status_changes TO candelabra_dbt;

-- dbt drops and recreates its tables: readers keep their rights through default privileges,
-- whether dbt runs as its own role or as the owner.
ALTER DEFAULT PRIVILEGES FOR ROLE candelabra_dbt IN SCHEMA marts, marts_audit
GRANT SELECT ON TABLES TO candelabra_jobs, candelabra_reader;
ALTER DEFAULT PRIVILEGES IN SCHEMA marts, marts_audit
GRANT SELECT ON TABLES TO candelabra_jobs, candelabra_reader;
GRANT SELECT ON ALL TABLES IN SCHEMA marts, marts_audit TO candelabra_jobs, candelabra_reader;

GRANT INSERT, UPDATE ON ops.reconciliations TO candelabra_jobs;
GRANT EXECUTE ON FUNCTION ops.minutes_in(tstzmultirange)
TO candelabra_streamer, candelabra_jobs, candelabra_dbt, candelabra_reader;

-- Marts of trades.
GRANT DELETE ON ops.trade_changes TO candelabra_dbt;
GRANT INSERT, DELETE ON ops.session_changes TO candelabra_dbt;
GRANT EXECUTE ON FUNCTION ops.changed_trades(pg_snapshot), ops.minute_of(timestamptz)
TO candelabra_jobs, candelabra_dbt;

-- Accounts. The streamer knows what is watched, and by nobody whom. Servers of readers check
-- passwords, begin and end sessions, and keep watchlists; who has an account the owner alone says.
GRANT USAGE ON SCHEMA accounts TO candelabra_streamer;
GRANT SELECT ON accounts.watched TO candelabra_streamer;
DO $$
BEGIN
    -- A role that came later than the others: an administrator may not have made it yet.
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'candelabra_accounts') THEN
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO candelabra_accounts', current_database());
        GRANT USAGE ON SCHEMA accounts TO candelabra_accounts;
        GRANT SELECT ON
        accounts.users, accounts.sessions, accounts.tokens, accounts.watched_symbols,
        accounts.watched
        TO candelabra_accounts;
        GRANT INSERT, DELETE ON accounts.sessions, accounts.watched_symbols TO candelabra_accounts;
    END IF;
END
$$;
