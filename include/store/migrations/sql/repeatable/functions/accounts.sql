-- Listeners read the tables again on a notification, so no process polls.

CREATE OR REPLACE FUNCTION accounts.notify_watchlists() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pg_notify('candelabra_watchlists', '');
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION accounts.notify_users() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pg_notify('candelabra_watchlists', '');
    PERFORM pg_notify('candelabra_access', '');
    RETURN NULL;
END
$$;

-- Expired sessions and tokens have ended already: deleting them sends no notification.
CREATE OR REPLACE FUNCTION accounts.notify_access() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF EXISTS (SELECT FROM gone WHERE expires_at IS NULL OR expires_at > now()) THEN
        PERFORM pg_notify('candelabra_access', '');
    END IF;
    RETURN NULL;
END
$$;
