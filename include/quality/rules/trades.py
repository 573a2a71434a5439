"""Rules about captured trades in ``market.agg_trades`` and ``market.trades``.

The batch has both in one format: dataset, symbol, day, id, price, quantity, trade_time, first and
last trade id (for a trade its own id). It contains the trades of a day and the trade before them.
Constraints of the tables guard keys, days, positive numbers and the order of ids.
"""

from __future__ import annotations

from include.quality.check import Check, Suite

# Ids of USD-M trades skip by design, and void aggregates (no price, no quantity) are not stored: if
# the single trade ids are contiguous, no row is missing. Ids restart when a ticker passes to
# another instrument. Trades in a gap of ops.gaps are known to be missing; the gap's bounds are
# minutes without proof, hence one minute of tolerance on both sides.
TRADE_ROWS_ARE_CONTIGUOUS = Check(
    "trade_rows_are_contiguous",
    "ids of aggTrades and of spot trades are contiguous, except for ranges in ops.gaps",
    """
    SELECT symbol, trade_time AS open_time, dataset || ' ' || id AS key,
        id - previous_id - 1 || ' missing after ' || previous_id AS detail
    FROM (
        SELECT
            *,
            lag(id) OVER in_order AS previous_id,
            lag(last_trade_id) OVER in_order AS previous_last,
            lag(trade_time) OVER in_order AS previous_time
        FROM {{batch}}
        WINDOW in_order AS (PARTITION BY dataset, symbol ORDER BY id)
    ) AS neighbours
    WHERE
        id > previous_id + 1 AND first_trade_id > previous_last + 1
        AND (dataset = 'agg_trades' OR market.market_of(symbol) = 'spot')
        AND NOT EXISTS (
            SELECT FROM ops.gaps AS gap
            WHERE
                gap.symbol = neighbours.symbol
                AND gap.dataset = neighbours.dataset
                AND gap.from_time - interval '1 minute' <= neighbours.trade_time
                AND gap.to_time + interval '1 minute' >= neighbours.previous_time
        )
        AND NOT EXISTS (
            SELECT FROM market.instruments AS listed
            WHERE
                listed.symbol = neighbours.symbol
                AND listed.listed_from > neighbours.previous_time
                AND listed.listed_from <= neighbours.trade_time
        )
    """,
)

# Ids ascend with the time of the trades; clock corrections may swap neighbours by less than a
# minute.
TRADE_TIMES_ASCEND = Check(
    "trade_times_ascend",
    "a trade with a greater id was not made more than a minute earlier",
    """
    SELECT symbol, trade_time AS open_time, dataset || ' ' || id AS key,
        'made ' || previous_time - trade_time || ' before ' || previous_id AS detail
    FROM (
        SELECT
            *,
            lag(id) OVER in_order AS previous_id,
            lag(trade_time) OVER in_order AS previous_time
        FROM {{batch}}
        WINDOW in_order AS (PARTITION BY dataset, symbol ORDER BY id)
    ) AS neighbours
    WHERE
        trade_time < previous_time - interval '1 minute'
        AND NOT EXISTS (
            SELECT FROM market.instruments AS listed
            WHERE
                listed.symbol = neighbours.symbol
                AND listed.listed_from > neighbours.trade_time
                AND listed.listed_from <= neighbours.previous_time
        )
    """,
)

TRADES = Suite(
    "trades",
    "market.agg_trades and market.trades",
    "SELECT * FROM quality_trades",
    (
        TRADE_ROWS_ARE_CONTIGUOUS,
        TRADE_TIMES_ASCEND,
    ),
)
