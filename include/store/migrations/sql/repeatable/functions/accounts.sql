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

-- The owner's limit. Without a row there are no sessions.
CREATE OR REPLACE FUNCTION accounts.longest_session() RETURNS interval
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT make_interval(hours => session_hours) FROM accounts.limits
$$;

-- The role of serving processes inserts sessions, but decides neither when they begin nor that they
-- never end.
CREATE OR REPLACE FUNCTION accounts.limit_session() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF (NEW.expires_at > now() + accounts.longest_session()) IS NOT FALSE THEN
        RAISE EXCEPTION 'a session until % is longer than the % allowed',
            NEW.expires_at, accounts.longest_session()
        USING ERRCODE = 'check_violation',
        HINT = 'SESSION_HOURS of the last `candelabra migrate` is the limit.';
    END IF;
    RETURN NEW;
END
$$;

-- 90 days, and the newest million of logins that did not succeed. Runs as the owner: serving
-- processes cannot delete what they wrote.
CREATE OR REPLACE FUNCTION accounts.remove_old_logins() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM accounts.logins WHERE at < now() - interval '90 days';
    DELETE FROM accounts.logins
    WHERE
        outcome <> 'succeeded'
        AND id <= (SELECT max(l.id) - 1000000 FROM accounts.logins AS l);
    RETURN NULL;
END
$$;
