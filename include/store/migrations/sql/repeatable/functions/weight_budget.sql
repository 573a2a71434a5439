-- Request weight of a host, shared by all processes: one row, one lock. A window is a clock minute
-- (UTC), as at the exchange. Call both functions outside a transaction: its end releases the lock.

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
        RAISE EXCEPTION 'request weight % exceeds the limit of % a minute', weight, weight_limit
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    INSERT INTO ops.weight_budget (host, window_start, used) VALUES (budget_host, '-infinity', 0)
    ON CONFLICT (host) DO NOTHING;
    SELECT b.* INTO budget FROM ops.weight_budget AS b WHERE b.host = budget_host FOR UPDATE;
    moment := clock_timestamp(); -- after the lock, else a long wait would use a past window
    -- Also if the stored window is later, as after a clock was set back or on a standby whose clock is
    -- behind: otherwise one minute's weight would have to last until the clock reaches the window.
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
'Reserves request weight of a host in the present clock minute. granted: whether it was available; wait_ms: how long to wait otherwise; granted_window: the minute, for ops.report_weight().';

-- The used-weight header refers to the minute in which the request was granted. If that is not the
-- current minute, the header is ignored.
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
'Reports an answer of the exchange: raises the used weight to its header, and blocks the host for retry_after_ms after 429 or 418.';
