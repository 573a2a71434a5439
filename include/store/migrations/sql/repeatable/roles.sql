-- Roles belong to the cluster, not to the database: a database restored on another cluster lacks them.
-- Migrations of two databases may run at the same time.
DO $$
DECLARE
    role_name text;
    owner_is_superuser boolean := (SELECT rolsuper FROM pg_roles WHERE rolname = current_user);
BEGIN
    FOREACH role_name IN ARRAY ARRAY[
        'candelabra_streamer', 'candelabra_jobs', 'candelabra_dbt', 'candelabra_reader',
        'candelabra_serving', 'candelabra_accounts'
    ] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I LOGIN', role_name);
            EXCEPTION
                WHEN duplicate_object OR unique_violation THEN
                    RAISE NOTICE 'role % was created by another migration', role_name;
                -- A managed server may not allow it: without roles the owner's login does everything.
                WHEN insufficient_privilege THEN
                    RETURN;
            END;
        END IF;
    END LOOP;
    -- Serving processes read what readers may read, with a login that readers cannot change.
    IF
        EXISTS (SELECT FROM pg_roles WHERE rolname = 'candelabra_serving')
        AND NOT pg_has_role('candelabra_serving', 'candelabra_reader', 'USAGE')
    THEN
        BEGIN
            GRANT candelabra_reader TO candelabra_serving;
        EXCEPTION
            WHEN insufficient_privilege THEN
                RAISE NOTICE 'candelabra_serving is no member of candelabra_reader';
            WHEN unique_violation OR internal_error THEN
                RAISE NOTICE 'another migration makes it a member';
        END;
    END IF;
    -- Only a member of candelabra_dbt can give it schemas and default privileges.
    IF NOT owner_is_superuser AND NOT pg_has_role(current_user, 'candelabra_dbt', 'USAGE') THEN
        EXECUTE format('GRANT candelabra_dbt TO %I', current_user);
    END IF;
END
$$;
