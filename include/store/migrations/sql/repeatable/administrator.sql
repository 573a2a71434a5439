-- What only a superuser may restrict. `candelabra migrate` runs it if the owner is one, Docker Compose
-- when it creates the cluster; otherwise a superuser runs it once in the database (docs/operations.md).
--
-- PostgreSQL lets everyone take advisory locks, by which builds and archives exclude each other, and
-- fill the disk: by large objects, messages in the write-ahead log, and files of exported snapshots.
-- Here all of these need a grant: the owner passes the locks on.
DO $$
DECLARE
    routine regprocedure;
    owner_name name := (
        SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()
    );
BEGIN
    FOR routine IN
        SELECT oid FROM pg_proc
        WHERE
            pronamespace = 'pg_catalog'::regnamespace
            AND (
                proname ~ '^(pg_advisory|pg_try_advisory|lo_)'
                OR proname IN (
                    'loread', 'lowrite', 'pg_logical_emit_message', 'pg_export_snapshot'
                )
            )
            AND has_function_privilege('public', oid, 'EXECUTE')
    LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', routine);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I WITH GRANT OPTION', routine, owner_name);
    END LOOP;
    IF NOT has_parameter_privilege(owner_name, 'temp_file_limit', 'SET') THEN
        EXECUTE format('GRANT SET ON PARAMETER temp_file_limit TO %I', owner_name);
    END IF;
END
$$;
