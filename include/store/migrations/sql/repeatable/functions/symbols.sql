CREATE OR REPLACE FUNCTION market.market_of(symbol text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
AS $$
SELECT CASE
    WHEN right(symbol, 2) = '.P' THEN 'um' WHEN strpos(symbol, '_') > 0 THEN 'cm' ELSE 'spot'
END
$$;
COMMENT ON FUNCTION market.market_of(text) IS
'Market of a platform symbol: spot for BTCUSDT, um (USD-M futures) for BTCUSDT.P, cm (COIN-M futures) for BTCUSD_PERP.';

-- plpgsql: a SQL function would be checked before the tables exist.
CREATE OR REPLACE FUNCTION market.contract_size_of(of_symbol text) RETURNS numeric
LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
AS $$
BEGIN
    RETURN (
        SELECT i.contract_size FROM market.instruments AS i
        WHERE i.symbol = of_symbol ORDER BY i.listed_from DESC LIMIT 1
    );
END
$$;
COMMENT ON FUNCTION market.contract_size_of(text) IS
'Quote value of one contract of a COIN-M symbol; null for others, whose volumes count the base asset.';

CREATE OR REPLACE FUNCTION ops.candle_symbols() RETURNS SETOF text
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
'All symbols with candles, found by one index probe for each symbol.';

CREATE OR REPLACE FUNCTION ops.stored_minutes(of_symbol text) RETURNS tstzrange
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
'Range from the first stored minute of a symbol to the end of the last one; empty if the symbol has no candles.';
