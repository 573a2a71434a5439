"""Rules about ``market.instruments``, one row per listing.

Constraints guard markets, positive steps, the length of a listing, and that at most one is open.
"""

from __future__ import annotations

from include.quality.check import Check, Severity, Suite

LISTINGS_DO_NOT_OVERLAP = Check(
    "listings_do_not_overlap",
    "a listing of a symbol begins when the one before has ended",
    """
    SELECT
        symbol,
        listed_from AS open_time,
        'the one from ' || previous_from || ' ends ' || coalesce(previous_to::text, 'never')
        AS detail
    FROM (
        SELECT
            *,
            lag(listed_from) OVER in_order AS previous_from,
            lag(listed_to) OVER in_order AS previous_to
        FROM {{batch}}
        WINDOW in_order AS (PARTITION BY symbol ORDER BY listed_from)
    ) AS neighbours
    WHERE
        previous_from IS NOT NULL
        AND coalesce(previous_to, 'infinity') > listed_from
    """,
)

SYMBOL_NAMES_ITS_MARKET = Check(
    "symbol_names_its_market",
    "a symbol is the exchange's name, with the suffix .P on USD-M",
    """
    SELECT
        symbol,
        listed_from AS open_time,
        market || ' ' || exchange_symbol || ' is not ' || symbol AS detail
    FROM {{batch}}
    WHERE symbol <> exchange_symbol || CASE market WHEN 'um' THEN '.P' ELSE '' END
    """,
)

FILTERS_FIT_THE_STEPS = Check(
    "filters_fit_the_steps",
    "tick and step are those of PRICE_FILTER and LOT_SIZE, whose minimum does not exceed their "
    "maximum",
    """
    SELECT
        symbol,
        listed_from AS open_time,
        'tick ' || tick_size || ', step ' || step_size || ', filters ' || price || ' ' || lot
        AS detail
    FROM (
        SELECT *, filters -> 'PRICE_FILTER' AS price, filters -> 'LOT_SIZE' AS lot
        FROM {{batch}}
    ) AS stepped
    WHERE
        (price ->> 'tickSize')::numeric NOT IN (0, tick_size)
        OR (lot ->> 'stepSize')::numeric NOT IN (0, step_size)
        OR (price ->> 'maxPrice')::numeric > 0
        AND (price ->> 'minPrice')::numeric > (price ->> 'maxPrice')::numeric
        OR (lot ->> 'minQty')::numeric > (lot ->> 'maxQty')::numeric
    """,
)

REGISTRY_IS_FRESH = Check(
    "registry_is_fresh",
    "every listing that has not ended was seen within two days of the newest look at its market",
    """
    SELECT symbol, seen_at AS open_time, 'last seen ' || newest - seen_at || ' earlier' AS detail
    FROM (
        SELECT *, max(seen_at) OVER (PARTITION BY market) AS newest FROM {{batch}}
    ) AS seen
    WHERE listed_to IS NULL AND seen_at < newest - interval '2 days'
    """,
    Severity.WARNING,
)

INSTRUMENTS = Suite(
    "instruments",
    "market.instruments",
    "SELECT * FROM market.instruments",
    (
        LISTINGS_DO_NOT_OVERLAP,
        SYMBOL_NAMES_ITS_MARKET,
        FILTERS_FIT_THE_STEPS,
        REGISTRY_IS_FRESH,
    ),
    key=("symbol", "listed_from"),
)
