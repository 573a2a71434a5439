-- Limits of readers, who may be anyone, and advisory locks for those who need them. An administrator's
-- own choice stays. What the owner may not set is skipped; migrate.py reports it.
DO $$
DECLARE
    routine regprocedure;
    setting text;
    own_settings text [] := (
        SELECT s.setconfig FROM pg_db_role_setting AS s
        WHERE
            s.setrole = 'candelabra_reader'::regrole
            AND s.setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
    );
BEGIN
    FOR routine IN
        SELECT oid FROM pg_proc
        WHERE
            pronamespace = 'pg_catalog'::regnamespace
            AND proname ~ '^(pg_advisory|pg_try_advisory)'
            AND has_function_privilege(current_user, oid, 'EXECUTE WITH GRANT OPTION')
            AND NOT (
                has_function_privilege('candelabra_streamer', oid, 'EXECUTE')
                AND has_function_privilege('candelabra_jobs', oid, 'EXECUTE')
                AND has_function_privilege('candelabra_dbt', oid, 'EXECUTE')
            )
    LOOP
        EXECUTE format(
            'GRANT EXECUTE ON FUNCTION %s TO candelabra_streamer, candelabra_jobs, candelabra_dbt',
            routine
        );
    END LOOP;

    FOREACH setting IN ARRAY ARRAY[
        'statement_timeout=10min', 'idle_in_transaction_session_timeout=1min', 'temp_file_limit=4GB'
    ] LOOP
        IF NOT EXISTS (
            SELECT FROM unnest(own_settings) AS s
            WHERE split_part(s, '=', 1) = split_part(setting, '=', 1)
        ) THEN
            BEGIN
                EXECUTE format(
                    'ALTER ROLE candelabra_reader IN DATABASE %I SET %I = %L',
                    current_database(), split_part(setting, '=', 1), split_part(setting, '=', 2)
                );
            EXCEPTION WHEN insufficient_privilege THEN
                RAISE NOTICE '% was not set for candelabra_reader', setting;
            END;
        END IF;
    END LOOP;

    IF (SELECT rolconnlimit FROM pg_roles WHERE rolname = 'candelabra_reader') = -1 THEN
        BEGIN
            ALTER ROLE candelabra_reader CONNECTION LIMIT 40;
        EXCEPTION
            WHEN insufficient_privilege THEN
                RAISE NOTICE 'candelabra_reader has no connection limit';
            -- "tuple concurrently updated": another database's migration sets the same limit.
            WHEN internal_error THEN
                RAISE NOTICE 'another migration sets the limit';
        END;
    END IF;
END
$$;
