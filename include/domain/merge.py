"""Choose the row of a minute among its candidates, independently of their order.

Every candidate has a key with a total order; the stored row is the greatest ever offered, so
neither order nor repetition matters. This is the pure equivalent of the SQL function
``ops.merge_candidates``, which every writer uses; tests compare the two.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import Decimal

from include.domain.candles import Candle, CandleCandidate, Source, Status

AGGREGATED_SOURCES = frozenset({Source.STREAM, Source.TRADES})
"""Sources that aggregate trades: of two such candidates, the one with more trades wins."""

OrderKey = tuple[int, bool, int, int, int, tuple[Decimal | int, ...], str]


@dataclass(frozen=True, slots=True)
class Stored:
    """The stored row with its provenance; see ``CandleCandidate``."""

    candle: Candle
    status: Status
    source: Source
    rank: int
    evidence_at_us: int | None


def order_key(candidate: CandleCandidate) -> OrderKey:
    """Return the position of a candidate in the total order; greater wins.

    From most to least significant: rank; time of the evidence (none is lowest); for aggregated
    candles trade count and last trade id (0 if there is none, and for all other sources); the nine
    values; the source's name, so that no two different candidates tie.
    """
    is_aggregated = candidate.source in AGGREGATED_SOURCES
    return (
        candidate.rank,
        candidate.evidence_at_us is not None,
        candidate.evidence_at_us or 0,
        candidate.candle.trade_count if is_aggregated else 0,
        (candidate.candle.last_trade_id or 0) if is_aggregated else 0,
        candidate.candle.values,
        str(candidate.source),
    )


def merge(candidates: Iterable[CandleCandidate]) -> Stored:
    """Return the winning row of all candidates of one symbol and minute.

    Trade ids depend on the nine values, not on the source: the row has the greatest pair (last id,
    first id) of all candidates whose values equal the winner's. So a REST row, which has no ids,
    gets the ids of the kline that it confirms.

    Raises:
        ValueError: no candidate, or candidates of different symbols or minutes.
    """
    everything = list(candidates)
    keys = {(candidate.candle.symbol, candidate.candle.open_time_us) for candidate in everything}
    if len(keys) != 1:
        raise ValueError(f"a merge takes candidates of exactly one minute, got {sorted(keys)}")
    winner = max(everything, key=order_key)
    ids = max(
        (
            candidate.candle
            for candidate in everything
            if candidate.candle.values == winner.candle.values
        ),
        key=_ids_key,
    )
    candle = replace(
        winner.candle, first_trade_id=ids.first_trade_id, last_trade_id=ids.last_trade_id
    )
    return Stored(candle, winner.status, winner.source, winner.rank, winner.evidence_at_us)


def _ids_key(candle: Candle) -> tuple[int, int]:
    last, first = candle.last_trade_id, candle.first_trade_id
    return (-1 if last is None else last, -1 if first is None else first)
