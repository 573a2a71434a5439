-- Limits of readers, who may be anyone, and of the processes that serve them; advisory locks for those
-- who need them. An administrator's own choice stays. What the owner may not set is skipped;
-- migrate.py reports it.
DO $$
DECLARE
    routine regprocedure;
    role_name name;
    setting text;
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

    FOR role_name, setting IN
        SELECT r.rolname, wanted.setting
        FROM pg_roles AS r
        CROSS JOIN unnest(ARRAY[
            'statement_timeout=10min',
            'idle_in_transaction_session_timeout=1min',
            'temp_file_limit=4GB'
        ]) AS wanted (setting)
        WHERE
            r.rolname IN ('candelabra_reader', 'candelabra_serving')
            AND NOT EXISTS (
                SELECT FROM pg_db_role_setting AS s
                INNER JOIN pg_database AS d ON s.setdatabase = d.oid
                CROSS JOIN unnest(s.setconfig) AS own (setting)
                WHERE
                    s.setrole = r.oid AND d.datname = current_database()
                    AND split_part(own.setting, '=', 1) = split_part(wanted.setting, '=', 1)
            )
    LOOP
        BEGIN
            EXECUTE format(
                'ALTER ROLE %I IN DATABASE %I SET %I = %L', role_name,
                current_database(), split_part(setting, '=', 1), split_part(setting, '=', 2)
            );
        EXCEPTION WHEN insufficient_privilege THEN
            RAISE NOTICE '% was not set for %', setting, role_name;
        END;
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
