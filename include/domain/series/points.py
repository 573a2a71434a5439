"""A point of a derivative series, as files, REST and the stream yield it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from include.domain.candles import Status
from include.domain.series.kinds import SeriesTable
from include.domain.timeframes import from_us

PointValue = Decimal | str | int | datetime | None


@dataclass(frozen=True, slots=True)
class SeriesPoint:
    """The values of one time of a series.

    Attributes:
        values: the value, carried and filled columns of its ``SeriesTable``, in that order; numbers
            as text or Decimal.
    """

    time_us: int
    values: tuple[PointValue, ...]
    status: Status = Status.VERIFIED

    def row(self, symbol: str, source: str, evidence_at_us: int) -> tuple[Any, ...]:
        """Return the point as a candidate, in the order of ``SeriesTable.columns``."""
        moment, evidence = from_us(self.time_us), from_us(evidence_at_us)
        return (symbol, moment, *self.values, self.status.value, source, evidence)


def point_of(table: SeriesTable, time_us: int, values: tuple[PointValue, ...]) -> SeriesPoint:
    """Return a point of the exchange: partial if one of the compared values is unknown."""
    is_partial = None in values[: len(table.values)]
    return SeriesPoint(time_us, values, Status.PARTIAL if is_partial else Status.VERIFIED)
