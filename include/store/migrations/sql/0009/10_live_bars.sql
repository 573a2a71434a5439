-- The live views ask for the changes of one symbol; without this they would read everybody's.
CREATE INDEX candle_changes_symbol ON ops.candle_changes (symbol, changed_by);

CREATE FUNCTION ops.stored_minutes(of_symbol text) RETURNS tstzrange
LANGUAGE plpgsql STABLE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    first_open timestamptz;
    last_open timestamptz;
BEGIN
    SELECT c.open_time INTO first_open FROM market.candles_1m AS c
    WHERE c.symbol = of_symbol ORDER BY c.open_time LIMIT 1;
    IF first_open IS NULL THEN
        RETURN 'empty';
    END IF;
    SELECT c.open_time INTO last_open FROM market.candles_1m AS c
    WHERE c.symbol = of_symbol ORDER BY c.open_time DESC LIMIT 1;
    RETURN tstzrange(first_open, last_open + interval '1 minute');
END
$$;
COMMENT ON FUNCTION ops.stored_minutes(text) IS
'From the first stored minute of a symbol to the end of its last one; empty where it has none.';

CREATE FUNCTION ops.candle_symbols() RETURNS SETOF text
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found text := '';
BEGIN
    LOOP
        SELECT c.symbol INTO found FROM market.candles_1m AS c
        WHERE c.symbol > found ORDER BY c.symbol LIMIT 1;
        EXIT WHEN found IS NULL;
        RETURN NEXT found;
    END LOOP;
END
$$;
COMMENT ON FUNCTION ops.candle_symbols() IS
'Every symbol with a stored minute, by one probe of the primary key for each.';
