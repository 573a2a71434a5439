"""Order book diffs and snapshots as lines of COPY."""

from __future__ import annotations

from collections.abc import Sequence

from include.domain.books.order_book import BookSnapshot, LevelText
from include.store.trades.copy_text import NULL, moment_text

LEVEL_COLUMNS = ("bid_prices", "bid_quantities", "ask_prices", "ask_quantities")


def depth_diff_line(
    symbol: str,
    last_update_id: int,
    first_update_id: int,
    previous_update_id: int | None,
    event_us: int,
    transaction_us: int | None,
    received_us: int,
    bids: Sequence[LevelText],
    asks: Sequence[LevelText],
) -> str:
    """Format a diff, whose levels are sound; times in µs."""
    at = moment_text(event_us)
    previous = NULL if previous_update_id is None else previous_update_id
    transaction = NULL if transaction_us is None else moment_text(transaction_us)
    return (
        f"{symbol}\t{at[:10]}\t{last_update_id}\t{first_update_id}\t{previous}\t{at}"
        f"\t{transaction}\t{moment_text(received_us)}\t{_arrays(bids)}\t{_arrays(asks)}\n"
    )


def depth_snapshot_line(symbol: str, snapshot: BookSnapshot, source: str, at_us: int) -> str:
    """Format a snapshot, whose levels are sound.

    Args:
        source: ``rest`` or ``checkpoint``.
        at_us: event time (µs) from which on books are rebuilt from it.
    """
    at = moment_text(at_us)
    return (
        f"{symbol}\t{at[:10]}\t{snapshot.last_update_id}\t{source}\t{at}"
        f"\t{_arrays(snapshot.bids)}\t{_arrays(snapshot.asks)}"
        f"\t{snapshot.bid_reach or NULL}\t{snapshot.ask_reach or NULL}\n"
    )


def _arrays(levels: Sequence[LevelText]) -> str:
    """Format prices and quantities as two arrays of PostgreSQL."""
    if not levels:
        return "{}\t{}"
    prices, quantities = zip(*levels, strict=True)
    return f"{{{','.join(prices)}}}\t{{{','.join(quantities)}}}"
