-- The request-weight budget of a host, shared by every process: one row, one lock, windows of the
-- exchange (the clock's minute, UTC). Call it in a transaction of its own: the lock lasts as long.

CREATE OR REPLACE FUNCTION ops.acquire_weight(
    budget_host text, weight integer, weight_limit integer DEFAULT 4500,
    OUT granted boolean, OUT used integer, OUT wait_ms integer, OUT granted_window timestamptz
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
AS $$
DECLARE
    budget ops.weight_budget;
    moment timestamptz;
BEGIN
    IF weight IS NULL OR weight < 0 OR weight > weight_limit THEN
        RAISE EXCEPTION 'a request of weight % can never be granted within % a minute', weight, weight_limit
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    INSERT INTO ops.weight_budget (host, window_start, used) VALUES (budget_host, '-infinity', 0)
    ON CONFLICT (host) DO NOTHING;
    SELECT b.* INTO budget FROM ops.weight_budget AS b WHERE b.host = budget_host FOR UPDATE;
    moment := clock_timestamp(); -- after the lock, else a long wait would spend a past window
    IF budget.window_start <> date_trunc('minute', moment) THEN
        budget.window_start := date_trunc('minute', moment);
        budget.used := 0;
    END IF;
    IF budget.blocked_until > moment THEN
        granted := false;
        wait_ms := ceil(extract(epoch FROM budget.blocked_until - moment) * 1000);
    ELSIF budget.used + weight > weight_limit THEN
        granted := false;
        wait_ms := ceil(extract(
            epoch FROM budget.window_start + interval '1 minute' - moment
        ) * 1000);
    ELSE
        granted := true;
        wait_ms := 0;
        budget.used := budget.used + weight;
    END IF;
    used := budget.used;
    granted_window := budget.window_start;
    UPDATE ops.weight_budget AS b
    SET window_start = budget.window_start, used = budget.used
    WHERE b.host = budget_host;
END
$$;
COMMENT ON FUNCTION ops.acquire_weight(text, integer, integer) IS
'Takes request weight from the host''s budget of this clock minute, or says how long to wait.';

-- A header tells of the minute that its request was granted in: neither of a later one nor, after
-- the clock was set back, of an earlier one.
CREATE OR REPLACE FUNCTION ops.report_weight(
    budget_host text, weight_used integer, retry_after_ms integer DEFAULT NULL,
    granted_window timestamptz DEFAULT NULL
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
AS $$
DECLARE
    budget ops.weight_budget;
    moment timestamptz;
    present timestamptz;
BEGIN
    INSERT INTO ops.weight_budget (host, window_start, used) VALUES (budget_host, '-infinity', 0)
    ON CONFLICT (host) DO NOTHING;
    SELECT b.* INTO budget FROM ops.weight_budget AS b WHERE b.host = budget_host FOR UPDATE;
    moment := clock_timestamp();
    present := date_trunc('minute', moment);
    IF budget.window_start <> present THEN
        budget.window_start := present;
        budget.used := 0;
    END IF;
    IF coalesce(granted_window, present) = present THEN
        budget.used := greatest(budget.used, weight_used);
    END IF;
    UPDATE ops.weight_budget AS b
    SET
        window_start = budget.window_start,
        used = budget.used,
        blocked_until = greatest(
            b.blocked_until, moment + retry_after_ms * interval '1 millisecond'
        )
    WHERE b.host = budget_host;
END
$$;
COMMENT ON FUNCTION ops.report_weight(text, integer, integer, timestamptz) IS
'Raises the used weight of the minute that the request was granted in to the exchange''s header, and keeps its Retry-After for everybody.';
