"""Rules about ``market.instruments``, one row per listing."""

from __future__ import annotations

from include.quality.check import Check, Severity, Suite

ONE_LISTING_IS_OPEN = Check(
    "one_listing_is_open",
    "a symbol has at most one listing that has not ended",
    """
    SELECT
        symbol,
        max(listed_from) AS open_time,
        count(*) || ' listings without an end, the first from ' || min(listed_from) AS detail
    FROM {{batch}}
    WHERE listed_to IS NULL
    GROUP BY symbol
    HAVING count(*) > 1
    """,
)

# Two open listings overlap as well, and have a rule of their own.
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
        WHERE listed_to IS NULL OR listed_to > listed_from
        WINDOW in_order AS (PARTITION BY symbol ORDER BY listed_from)
    ) AS neighbours
    WHERE
        previous_from IS NOT NULL
        AND coalesce(previous_to, 'infinity') > listed_from
        AND (previous_to IS NOT NULL OR listed_to IS NOT NULL)
    """,
)

MARKET_IS_KNOWN = Check(
    "market_is_known",
    "the market is spot or um",
    built_in="ExpectColumnValuesToBeInSet",
    arguments={"column": "market", "value_set": ["spot", "um"]},
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
    WHERE
        market IN ('spot', 'um')
        AND symbol <> exchange_symbol || CASE market WHEN 'um' THEN '.P' ELSE '' END
    """,
)

TICK_IS_POSITIVE = Check(
    "tick_is_positive",
    "the smallest step of a price is above zero",
    built_in="ExpectColumnValuesToBeBetween",
    arguments={"column": "tick_size", "min_value": 0, "strict_min": True},
)

STEP_IS_POSITIVE = Check(
    "step_is_positive",
    "the smallest step of a quantity is above zero",
    built_in="ExpectColumnValuesToBeBetween",
    arguments={"column": "step_size", "min_value": 0, "strict_min": True},
)

LISTING_HAS_A_LENGTH = Check(
    "listing_has_a_length",
    "a listing ends after it began",
    built_in="ExpectColumnPairValuesAToBeGreaterThanB",
    arguments={
        "column_A": "listed_to",
        "column_B": "listed_from",
        "ignore_row_if": "either_value_is_missing",
    },
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
        WHERE tick_size > 0 AND step_size > 0
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
        ONE_LISTING_IS_OPEN,
        LISTINGS_DO_NOT_OVERLAP,
        MARKET_IS_KNOWN,
        SYMBOL_NAMES_ITS_MARKET,
        TICK_IS_POSITIVE,
        STEP_IS_POSITIVE,
        LISTING_HAS_A_LENGTH,
        FILTERS_FIT_THE_STEPS,
        REGISTRY_IS_FRESH,
    ),
    key=("symbol", "listed_from"),
)
