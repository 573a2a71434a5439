-- Whoever listens hears within a moment of what changed, and reads it anew: nobody polls.
CREATE FUNCTION accounts.tell_watchlists() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pg_notify('candelabra_watchlists', '');
    RETURN NULL;
END
$$;

CREATE FUNCTION accounts.tell_users() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pg_notify('candelabra_watchlists', '');
    PERFORM pg_notify('candelabra_access', '');
    RETURN NULL;
END
$$;

-- What had expired ended by itself.
CREATE FUNCTION accounts.tell_access() RETURNS trigger
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

CREATE TRIGGER tell_watchlists
AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON accounts.watched_symbols
FOR EACH STATEMENT EXECUTE FUNCTION accounts.tell_watchlists();

CREATE TRIGGER tell_users
AFTER UPDATE OR DELETE ON accounts.users
FOR EACH STATEMENT EXECUTE FUNCTION accounts.tell_users();

CREATE TRIGGER tell_access
AFTER DELETE ON accounts.sessions
REFERENCING OLD TABLE AS gone
FOR EACH STATEMENT EXECUTE FUNCTION accounts.tell_access();

CREATE TRIGGER tell_access
AFTER DELETE ON accounts.tokens
REFERENCING OLD TABLE AS gone
FOR EACH STATEMENT EXECUTE FUNCTION accounts.tell_access();

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA accounts FROM PUBLIC;
