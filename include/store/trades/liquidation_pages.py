"""Read captured liquidations of a symbol by time, page by page."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql

from include.domain.timeframes import from_us as moment
from include.domain.timeframes import to_us as in_us
from include.store.candles.merging import Connection
from include.store.postgres.pools import translated
from include.store.trades.captured import LIQUIDATIONS
from include.store.trades.liquidations import Liquidation, first_id_at
from include.store.trades.pages import captured_days, day_runs

# Ids ascend with the order time: the key gives the order, and the days select the partitions.
_ROWS = sql.SQL("""
SELECT
    t.order_time, t.event_time, t.received_at, t.side, t.order_type, t.time_in_force,
    t.price, t.average_price, t.quantity, t.last_filled_quantity, t.accumulated_quantity,
    t.order_status
FROM market.liquidations AS t
WHERE
    t.symbol = %s AND t.day >= %s AND t.day <= %s
    AND t.liquidation_id >= %s AND t.liquidation_id < %s
ORDER BY t.day, t.liquidation_id
LIMIT %s
""")


@dataclass(frozen=True, slots=True)
class LiquidationPage:
    """Liquidations of a symbol, by order time.

    Attributes:
        further_id: first id of the next page; None if this is the last one.
    """

    liquidations: list[Liquidation]
    further_id: int | None


def read_liquidations(
    connection: Connection,
    symbol: str,
    from_us: int,
    to_us: int,
    *,
    from_id: int = 0,
    limit: int,
) -> LiquidationPage:
    """Return the liquidations of a symbol in a range of order times (µs), oldest first.

    Args:
        to_us: exclusive.
        from_id: the page's first id.
        limit: maximum liquidations of the page.
    """
    first_id, end_id = max(from_id, first_id_at(from_us)), first_id_at(to_us)
    first, last = moment(from_us).date(), moment(to_us).date()
    days = [day for day in captured_days(connection, LIQUIDATIONS, first) if day <= last]
    found: list[Liquidation] = []
    for low, high in day_runs(days, newest=False):
        left = limit + 1 - len(found)
        if not left:
            break
        with translated(connection):
            # Never prepared: a generic plan for any days would cover all partitions.
            rows = connection.execute(
                _ROWS, (symbol, low, high, first_id, end_id, left), prepare=False
            ).fetchall()
        found += [
            Liquidation(symbol, in_us(order), in_us(event), in_us(received), *values)
            for order, event, received, *values in rows
        ]
    further = found[limit:]
    return LiquidationPage(found[:limit], further[0].id if further else None)
