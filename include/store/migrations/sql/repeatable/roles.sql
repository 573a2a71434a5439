-- Roles belong to the whole cluster, so they are looked after on every migration, not once: a
-- database restored elsewhere finds them missing. Two migrations of two databases may meet here.
DO $$
DECLARE
    role_name text;
    owner_is_superuser boolean := (SELECT rolsuper FROM pg_roles WHERE rolname = current_user);
BEGIN
    FOREACH role_name IN ARRAY ARRAY[
        'candelabra_streamer', 'candelabra_jobs', 'candelabra_dbt', 'candelabra_reader',
        'candelabra_accounts'
    ] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I LOGIN', role_name);
            EXCEPTION
                WHEN duplicate_object OR unique_violation THEN
                    RAISE NOTICE 'role % was made meanwhile', role_name;
                -- A managed server may let nobody make roles: without them the owner does all.
                WHEN insufficient_privilege THEN
                    RETURN;
            END;
        END IF;
    END LOOP;
    -- To give candelabra_dbt schemas and default privileges, an ordinary owner must be a member.
    IF NOT owner_is_superuser AND NOT pg_has_role(current_user, 'candelabra_dbt', 'USAGE') THEN
        EXECUTE format('GRANT candelabra_dbt TO %I', current_user);
    END IF;
END
$$;
