-- Order books rebuilt from a snapshot and the diffs after it. Each diff must follow the one before by
-- its ids, and so must the first diff after the requested moment: otherwise diffs are missing, and
-- the book is not known.

-- The key is searched by one day after the other: with a range of days, all diffs of a day would be
-- read to find those after an id.
CREATE OR REPLACE FUNCTION ops.book_path(
    of_symbol text, at_time timestamptz, at_update_id bigint
) RETURNS TABLE (
    state text,
    last_update_id bigint,
    event_time timestamptz,
    last_day date,
    snapshot_day date,
    snapshot_update_id bigint,
    detail text
)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
    base record;
    diff record;
    on_day date;
    end_day date;
BEGIN
    IF at_update_id IS NULL THEN
        SELECT s.day, s.last_update_id, s.at_time INTO base FROM market.depth_snapshots AS s
        WHERE
            s.symbol = of_symbol AND s.at_time <= book_path.at_time
            AND s.day BETWEEN book_path.at_time::date - 1 AND book_path.at_time::date
        ORDER BY s.at_time DESC, s.last_update_id DESC LIMIT 1;
        IF NOT FOUND THEN
            SELECT s.day, s.last_update_id, s.at_time INTO base FROM market.depth_snapshots AS s
            WHERE s.symbol = of_symbol AND s.at_time <= book_path.at_time
            ORDER BY s.at_time DESC, s.last_update_id DESC LIMIT 1;
        END IF;
    ELSE
        SELECT s.day, s.last_update_id, s.at_time INTO base FROM market.depth_snapshots AS s
        WHERE s.symbol = of_symbol AND s.last_update_id <= at_update_id
        ORDER BY s.day DESC, s.last_update_id DESC LIMIT 1;
    END IF;
    IF base IS NULL THEN
        state := 'none';
        detail := format('no snapshot of %s is stored at or before this', of_symbol);
        RETURN NEXT;
        RETURN;
    END IF;
    state := 'latest';
    detail := 'no later diff is stored: the book as of its last update';
    snapshot_day := base.day;
    snapshot_update_id := base.last_update_id;
    last_update_id := base.last_update_id;
    event_time := base.at_time;
    last_day := base.day;
    on_day := base.day;
    end_day := greatest(at_time::date, current_date, base.day) + 1;
    WHILE state = 'latest' AND on_day <= end_day LOOP
        FOR diff IN
            SELECT
                d.last_update_id,
                d.event_time,
                coalesce(d.previous_update_id, d.first_update_id - 1) AS previous_id
            FROM market.depth_diffs AS d
            WHERE
                d.symbol = of_symbol AND d.day = on_day
                AND d.last_update_id > book_path.last_update_id
            ORDER BY d.last_update_id
        LOOP
            IF at_update_id = last_update_id THEN
                state := 'known';
            ELSIF diff.previous_id > last_update_id THEN
                state := 'gap';
                detail := format(
                    'diffs between the updates %s and %s, or %s and %s, are missing',
                    last_update_id, diff.previous_id, event_time, diff.event_time
                );
            ELSIF diff.event_time > book_path.at_time OR diff.last_update_id > at_update_id THEN
                state := 'known';
            END IF;
            EXIT WHEN state <> 'latest';
            last_update_id := diff.last_update_id;
            event_time := diff.event_time;
            last_day := on_day;
        END LOOP;
        on_day := on_day + 1;
    END LOOP;
    IF state = 'latest' AND at_update_id = last_update_id THEN
        state := 'known';
    END IF;
    IF state = 'known' THEN
        detail := NULL;
    END IF;
    RETURN NEXT;
END
$$;
COMMENT ON FUNCTION ops.book_path(text, timestamptz, bigint) IS
'The snapshot and the last diff from which the order book at a time, or at an update id, is rebuilt; and whether the diffs between are complete.';

CREATE OR REPLACE FUNCTION ops.book_levels(
    of_symbol text,
    snapshot_day date,
    snapshot_update_id bigint,
    last_day date,
    last_update_id bigint,
    levels integer
) RETURNS TABLE (side text, level integer, price numeric, quantity numeric, is_known boolean)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    base record;
BEGIN
    SELECT s.* INTO STRICT base FROM market.depth_snapshots AS s
    WHERE
        s.symbol = of_symbol AND s.day = book_levels.snapshot_day
        AND s.last_update_id = book_levels.snapshot_update_id;
    RETURN QUERY
    WITH diffs AS MATERIALIZED (
        SELECT d.last_update_id AS id, d.bid_prices, d.bid_quantities, d.ask_prices, d.ask_quantities
        FROM generate_series(0, book_levels.last_day - book_levels.snapshot_day) AS g (n)
        CROSS JOIN LATERAL (
            SELECT * FROM market.depth_diffs AS o
            WHERE
                o.symbol = of_symbol AND o.day = book_levels.snapshot_day + g.n
                AND o.last_update_id > book_levels.snapshot_update_id
                AND o.last_update_id <= book_levels.last_update_id
        ) AS d
        UNION ALL
        SELECT base.last_update_id, base.bid_prices, base.bid_quantities, base.ask_prices,
            base.ask_quantities
    ),

    bids AS (
        SELECT DISTINCT ON (l.price) l.price, l.quantity
        FROM diffs CROSS JOIN LATERAL unnest(bid_prices, bid_quantities) AS l (price, quantity)
        ORDER BY l.price DESC, diffs.id DESC
    ),

    asks AS (
        SELECT DISTINCT ON (l.price) l.price, l.quantity
        FROM diffs CROSS JOIN LATERAL unnest(ask_prices, ask_quantities) AS l (price, quantity)
        ORDER BY l.price, diffs.id DESC
    )

    (
        SELECT
            'bid', (row_number() OVER (ORDER BY b.price DESC))::integer, b.price, b.quantity,
            base.bid_reach IS NULL OR b.price >= base.bid_reach
        FROM bids AS b WHERE b.quantity > 0
        ORDER BY b.price DESC LIMIT levels
    )
    UNION ALL
    (
        SELECT
            'ask', (row_number() OVER (ORDER BY a.price))::integer, a.price, a.quantity,
            base.ask_reach IS NULL OR a.price <= base.ask_reach
        FROM asks AS a WHERE a.quantity > 0
        ORDER BY a.price LIMIT levels
    );
END
$$;
COMMENT ON FUNCTION ops.book_levels(text, date, bigint, date, bigint, integer) IS
'The best levels of each side after a snapshot and the diffs up to an update id.';

CREATE OR REPLACE FUNCTION market.book_state(symbol text, at timestamptz)
RETURNS TABLE (
    state text, last_update_id bigint, event_time timestamptz, snapshot_update_id bigint, detail text
)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
SELECT p.state, p.last_update_id, p.event_time, p.snapshot_update_id, p.detail
FROM ops.book_path(symbol, at, NULL) AS p;
END;
COMMENT ON FUNCTION market.book_state(text, timestamptz) IS
'Whether the order book of a symbol at a time can be rebuilt: known, latest (no later diff is stored yet), gap (diffs are missing) or none (no snapshot before).';

CREATE OR REPLACE FUNCTION market.book_at(symbol text, at timestamptz, levels integer DEFAULT 20)
RETURNS TABLE (side text, level integer, price numeric, quantity numeric, is_known boolean)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    path record;
BEGIN
    SELECT * INTO path FROM ops.book_path(book_at.symbol, at, NULL);
    IF path.state IN ('gap', 'none') THEN
        RAISE NOTICE 'the order book of % at % is not known (%): %', book_at.symbol, at, path.state, path.detail;
        RETURN;
    END IF;
    RETURN QUERY SELECT * FROM ops.book_levels(
        book_at.symbol, path.snapshot_day, path.snapshot_update_id, path.last_day,
        path.last_update_id, levels
    );
END
$$;
COMMENT ON FUNCTION market.book_at(text, timestamptz, integer) IS
'The best levels of each side of an order book at an event time, best first. No rows and a notice where the book is not known; market.book_state() says why. is_known is false where levels before this one may be missing.';

CREATE OR REPLACE FUNCTION market.book_at_update(
    symbol text, update_id bigint, levels integer DEFAULT 20
)
RETURNS TABLE (side text, level integer, price numeric, quantity numeric, is_known boolean)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    path record;
BEGIN
    SELECT * INTO path FROM ops.book_path(book_at_update.symbol, NULL, update_id);
    IF path.state IN ('gap', 'none') THEN
        RAISE NOTICE 'the order book of % at update % is not known (%): %',
            book_at_update.symbol, update_id, path.state, path.detail;
        RETURN;
    END IF;
    RETURN QUERY SELECT * FROM ops.book_levels(
        book_at_update.symbol, path.snapshot_day, path.snapshot_update_id, path.last_day,
        path.last_update_id, levels
    );
END
$$;
COMMENT ON FUNCTION market.book_at_update(text, bigint, integer) IS
'As market.book_at(), after the last stored diff up to an update id.';
