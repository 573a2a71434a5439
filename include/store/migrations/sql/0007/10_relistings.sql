-- The bar in which two listings of a ticker meet holds the minutes of the later one alone. What the
-- registry learns of listings therefore changes bars: those of the first minute after each end.
CREATE FUNCTION ops.log_relisting() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    subject text := CASE WHEN TG_OP = 'DELETE' THEN OLD.symbol ELSE NEW.symbol END;
    once_ended timestamptz := CASE WHEN TG_OP = 'INSERT' THEN NULL ELSE OLD.listed_to END;
BEGIN
    INSERT INTO ops.candle_changes (symbol, minutes)
    SELECT subject, range_agg(tstzrange(f.open_time, f.open_time + interval '1 minute'))
    FROM (
        SELECT i.listed_to FROM market.instruments AS i
        WHERE i.symbol = subject AND i.listed_to IS NOT NULL
        UNION
        SELECT once_ended WHERE once_ended IS NOT NULL
    ) AS e
    CROSS JOIN LATERAL (
        SELECT c.open_time FROM market.candles_1m AS c
        WHERE
            c.symbol = subject
            AND c.open_time >= date_bin('1 minute', e.listed_to, '2001-01-01 00:00:00+00')
        ORDER BY c.open_time LIMIT 1
    ) AS f
    HAVING count(*) > 0;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION ops.log_relisting() IS
'Marks the bars in which two listings of a ticker meet for rebuilding.';

CREATE TRIGGER log_listed AFTER INSERT OR DELETE ON market.instruments
FOR EACH ROW EXECUTE FUNCTION ops.log_relisting();

CREATE TRIGGER log_ended AFTER UPDATE ON market.instruments
FOR EACH ROW WHEN (
    (old.listed_from, old.listed_to) IS DISTINCT FROM (new.listed_from, new.listed_to)
)
EXECUTE FUNCTION ops.log_relisting();
