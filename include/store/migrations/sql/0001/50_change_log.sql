-- The change log: statement-level triggers write a few rows for a bulk merge. They run with the
-- owner's rights, so a writer can neither forget nor forge them.

CREATE FUNCTION ops.log_inserted_candles() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO ops.candle_changes (symbol, minutes)
    SELECT n.symbol, range_agg(tstzrange(n.open_time, n.open_time + interval '1 minute'))
    FROM new_rows AS n
    GROUP BY n.symbol;
    RETURN NULL;
END
$$;

CREATE FUNCTION ops.log_deleted_candles() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO ops.candle_changes (symbol, minutes)
    SELECT o.symbol, range_agg(tstzrange(o.open_time, o.open_time + interval '1 minute'))
    FROM old_rows AS o
    GROUP BY o.symbol;
    RETURN NULL;
END
$$;

-- Only what a mart is built from counts: provenance that rises leaves no mark.
CREATE FUNCTION ops.log_updated_candles() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_hashjoin = on
AS $$
BEGIN
    INSERT INTO ops.candle_changes (symbol, minutes)
    SELECT t.symbol, range_agg(tstzrange(t.open_time, t.open_time + interval '1 minute'))
    FROM (
        SELECT
            coalesce(o.symbol, n.symbol) AS symbol,
            coalesce(o.open_time, n.open_time) AS open_time
        FROM old_rows AS o
        FULL JOIN new_rows AS n ON o.symbol = n.symbol AND o.open_time = n.open_time
        WHERE (
            o.open, o.high, o.low, o.close, o.volume, o.quote_volume, o.trade_count,
            o.taker_buy_volume, o.taker_buy_quote_volume
        ) IS DISTINCT FROM (
            n.open, n.high, n.low, n.close, n.volume, n.quote_volume, n.trade_count,
            n.taker_buy_volume, n.taker_buy_quote_volume
        )
    ) AS t
    GROUP BY t.symbol;
    RETURN NULL;
END
$$;

CREATE FUNCTION ops.log_truncated_candles() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO ops.candle_changes (symbol, minutes)
    SELECT c.symbol, tstzmultirange(tstzrange(min(c.open_time), max(c.open_time), '[]'))
    FROM market.candles_1m AS c
    GROUP BY c.symbol;
    RETURN NULL;
END
$$;

CREATE TRIGGER log_inserted AFTER INSERT ON market.candles_1m
REFERENCING NEW TABLE AS new_rows
FOR EACH STATEMENT EXECUTE FUNCTION ops.log_inserted_candles();

CREATE TRIGGER log_updated AFTER UPDATE ON market.candles_1m
REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
FOR EACH STATEMENT EXECUTE FUNCTION ops.log_updated_candles();

CREATE TRIGGER log_deleted AFTER DELETE ON market.candles_1m
REFERENCING OLD TABLE AS old_rows
FOR EACH STATEMENT EXECUTE FUNCTION ops.log_deleted_candles();

CREATE TRIGGER log_truncated BEFORE TRUNCATE ON market.candles_1m
FOR EACH STATEMENT EXECUTE FUNCTION ops.log_truncated_candles();

-- An outage decides whether a bar is complete. One of a whole market is written out for each
-- symbol that has bars near it: by loose index scan over the partitions of those months.
CREATE FUNCTION ops.log_outage(outage_market text, outage_symbol text, outage_minutes tstzmultirange)
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
AS $$
DECLARE
    first_month timestamptz := date_trunc('month', coalesce(lower(outage_minutes), '-infinity'));
    last_month timestamptz := date_trunc('month', coalesce(upper(outage_minutes), 'infinity'));
BEGIN
    IF outage_symbol IS NOT NULL THEN
        INSERT INTO ops.candle_changes (symbol, minutes) VALUES (outage_symbol, outage_minutes);
        RETURN;
    END IF;
    INSERT INTO ops.candle_changes (symbol, minutes)
    WITH RECURSIVE seen (symbol) AS (
        (
            SELECT c.symbol FROM market.candles_1m AS c
            WHERE
                c.open_time >= first_month - interval '7 days'
                AND c.open_time < last_month + interval '1 month 7 days'
            ORDER BY c.symbol LIMIT 1
        )
        UNION ALL
        SELECT (
            SELECT c.symbol FROM market.candles_1m AS c
            WHERE
                c.symbol > s.symbol
                AND c.open_time >= first_month - interval '7 days'
                AND c.open_time < last_month + interval '1 month 7 days'
            ORDER BY c.symbol LIMIT 1
        )
        FROM seen AS s WHERE s.symbol IS NOT NULL
    )
    SELECT s.symbol, outage_minutes FROM seen AS s
    WHERE s.symbol IS NOT NULL AND market.market_of(s.symbol) = outage_market;
END
$$;

CREATE FUNCTION ops.log_outages() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        PERFORM ops.log_outage(n.market, n.symbol, n.minutes) FROM new_rows AS n;
    ELSIF TG_OP = 'DELETE' THEN
        PERFORM ops.log_outage(o.market, o.symbol, o.minutes) FROM old_rows AS o;
    ELSE
        -- what the update took away, and what it added
        PERFORM ops.log_outage(o.market, o.symbol, o.minutes - coalesce(n.minutes, '{}'))
        FROM old_rows AS o
        LEFT JOIN new_rows AS n
            ON o.id = n.id AND o.market = n.market AND o.symbol IS NOT DISTINCT FROM n.symbol
        WHERE NOT isempty(o.minutes - coalesce(n.minutes, '{}'));
        PERFORM ops.log_outage(n.market, n.symbol, n.minutes - coalesce(o.minutes, '{}'))
        FROM new_rows AS n
        LEFT JOIN old_rows AS o
            ON n.id = o.id AND n.market = o.market AND n.symbol IS NOT DISTINCT FROM o.symbol
        WHERE NOT isempty(n.minutes - coalesce(o.minutes, '{}'));
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER log_inserted AFTER INSERT ON ops.outages
REFERENCING NEW TABLE AS new_rows
FOR EACH STATEMENT EXECUTE FUNCTION ops.log_outages();

CREATE TRIGGER log_updated AFTER UPDATE ON ops.outages
REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
FOR EACH STATEMENT EXECUTE FUNCTION ops.log_outages();

CREATE TRIGGER log_deleted AFTER DELETE ON ops.outages
REFERENCING OLD TABLE AS old_rows
FOR EACH STATEMENT EXECUTE FUNCTION ops.log_outages();
