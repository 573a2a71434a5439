-- Privileges of the roles. Applied on every migration: new tables and functions get their grants,
-- and a restored database gets them back.
DO $$
BEGIN
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format(
        'GRANT CONNECT, TEMPORARY ON DATABASE %I TO '
        'candelabra_streamer, candelabra_jobs, candelabra_dbt',
        current_database()
    );
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO candelabra_reader', current_database());
    -- The new owner of a schema needs CREATE on the database, unless a superuser migrates.
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
-- Not on partitions: writes to a partition would bypass the triggers of its parent.
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
market.contract_size_of(text),
market.live_candles_of(text),
market.book_state(text, timestamptz),
market.book_at(text, timestamptz, integer),
market.book_at_update(text, bigint, integer),
ops.book_path(text, timestamptz, bigint),
ops.book_levels(text, date, bigint, date, bigint, integer),
ops.system_identifier(),
ops.stored_minutes(text),
ops.candle_symbols(),
ops.candle_evidence(text, timestamptz, timestamptz),
ops.minutes_in(tstzmultirange),
ops.suspected_outages(timestamptz, timestamptz, integer, integer),
ops.series_gaps(timestamptz, timestamptz, text, text),
market.derivatives_as_of(text, timestamptz)
TO candelabra_streamer, candelabra_jobs, candelabra_dbt, candelabra_reader;

-- Writers of candles. The streamer cannot delete candles; only the owner can truncate or drop.
GRANT INSERT, UPDATE ON
market.candles_1m, ops.discrepancies, ops.coverage, ops.gaps, ops.outages
TO candelabra_streamer, candelabra_jobs;
GRANT EXECUTE ON FUNCTION
ops.write_live_candles,
ops.delete_live_candles(text [], timestamptz []),
ops.rotate_live_candles(),
ops.oldest_snapshot_s()
TO candelabra_streamer, candelabra_jobs;
GRANT INSERT ON
market.agg_trades, market.trades, market.book_tickers, market.liquidations, market.depth_diffs,
market.depth_snapshots
TO candelabra_streamer, candelabra_jobs;
GRANT INSERT, UPDATE, DELETE ON market.foreign_candles_1m TO candelabra_jobs;
GRANT INSERT, UPDATE ON market.instruments TO candelabra_streamer, candelabra_jobs;
GRANT EXECUTE ON FUNCTION
ops.ensure_partition(regclass, timestamptz),
ops.merge_candidates(),
ops.store_candles,
ops.discard_known_candidates(timestamptz, timestamptz),
ops.acquire_weight(text, integer, integer),
ops.report_weight(text, integer, integer, timestamptz)
TO candelabra_streamer, candelabra_jobs;

-- Derivative series. A discrepancy ends when its values become the row's.
GRANT INSERT, UPDATE ON
market.funding_rates, market.mark_prices_1m, market.index_prices_1m, market.premium_index_1m,
market.open_interest_5m, market.trader_ratios_5m, ops.series_coverage, ops.series_discrepancies
TO candelabra_streamer, candelabra_jobs;
GRANT DELETE ON ops.series_discrepancies TO candelabra_streamer, candelabra_jobs;
GRANT EXECUTE ON FUNCTION
ops.merge_series(text),
ops.series_values_of(text [], text),
ops.series_row_of(text [], text, text [], text)
TO candelabra_streamer, candelabra_jobs;

GRANT DELETE ON
market.candles_1m, market.agg_trades, market.trades, market.book_tickers, market.liquidations,
market.depth_diffs, market.depth_snapshots, market.instruments,
ops.coverage, ops.gaps, ops.outages, ops.discrepancies
TO candelabra_jobs;
GRANT INSERT, UPDATE, DELETE ON
ops.dump_files, ops.rejected_rows, ops.quality_results, ops.quality_runs
TO candelabra_jobs;
GRANT EXECUTE ON FUNCTION ops.advance_quality_cursor(pg_snapshot) TO candelabra_jobs;
-- The audit of the marts logs minutes whose bars are to be rebuilt.
GRANT INSERT, UPDATE ON ops.mart_audits TO candelabra_jobs;
GRANT INSERT ON ops.candle_changes TO candelabra_jobs;
GRANT INSERT, UPDATE ON ops.archived_partitions, ops.reconciliations TO candelabra_jobs;
GRANT EXECUTE ON FUNCTION
ops.raw_fingerprint(text, date),
ops.drop_archived_partition(text, date)
TO candelabra_jobs;

-- dbt advances its cursors and prunes the change log.
GRANT INSERT, UPDATE, DELETE ON ops.build_cursors TO candelabra_dbt;
GRANT DELETE ON ops.candle_changes, ops.status_changes, ops.trade_changes TO candelabra_dbt;
GRANT INSERT, DELETE ON ops.session_changes TO candelabra_dbt;
GRANT EXECUTE ON FUNCTION ops.changed_trades(pg_snapshot), ops.minute_of(timestamptz)
TO candelabra_jobs, candelabra_dbt;

-- dbt drops and recreates its tables. Default privileges keep them readable, whether dbt runs as its
-- own role or as the owner.
ALTER DEFAULT PRIVILEGES FOR ROLE candelabra_dbt IN SCHEMA marts, marts_audit
GRANT SELECT ON TABLES TO candelabra_jobs, candelabra_reader;
ALTER DEFAULT PRIVILEGES IN SCHEMA marts, marts_audit
GRANT SELECT ON TABLES TO candelabra_jobs, candelabra_reader;
GRANT SELECT ON ALL TABLES IN SCHEMA marts, marts_audit TO candelabra_jobs, candelabra_reader;

-- Accounts. The streamer sees which symbols are watched, not by whom. Servers check passwords, create
-- and delete sessions, and write watchlists. Only the owner creates accounts.
GRANT USAGE ON SCHEMA accounts TO candelabra_streamer;
GRANT SELECT ON accounts.watched TO candelabra_streamer;
DO $$
BEGIN
    -- Administrators who created the first four roles by hand may not have created this one.
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'candelabra_accounts') THEN
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO candelabra_accounts', current_database());
        GRANT USAGE ON SCHEMA accounts TO candelabra_accounts;
        GRANT SELECT ON
        accounts.users, accounts.sessions, accounts.tokens, accounts.watched_symbols,
        accounts.watched, accounts.logins, accounts.limits
        TO candelabra_accounts;
        -- Neither times nor ids: nobody dates a session into the future, or before a newer one.
        REVOKE INSERT ON accounts.sessions, accounts.watched_symbols FROM candelabra_accounts;
        GRANT INSERT (user_id, secret_hash, expires_at) ON accounts.sessions
        TO candelabra_accounts;
        GRANT INSERT (user_id, symbol) ON accounts.watched_symbols TO candelabra_accounts;
        GRANT DELETE ON accounts.sessions, accounts.watched_symbols TO candelabra_accounts;
        -- Likewise, and no deletion: the log of logins is for the operator.
        GRANT INSERT (outcome, account, network, attempts) ON accounts.logins
        TO candelabra_accounts;
        GRANT EXECUTE ON FUNCTION accounts.longest_session() TO candelabra_accounts;
    END IF;
END
$$;
