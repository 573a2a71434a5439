"""Convert pieces of work and results to JSON for passing between Airflow tasks, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from datetime import date, datetime
from typing import Any

from include.errors import PermanentError
from include.jobs.derivatives.pieces import SeriesFilePiece, SeriesGroup, SeriesRestPiece
from include.jobs.files.pieces import InboxFile, InboxResult
from include.jobs.groups import HistoryGroup, HistorySpan
from include.jobs.klines.pieces import (
    DayGroup,
    DayPiece,
    DumpPiece,
    LoadCounts,
    Reconciled,
    RestPiece,
)
from include.jobs.trades.pieces import TradeDumpCounts, TradeDumpPiece

TYPE = "type"
"""JSON key of the type's name; no field may have this name."""

TYPES: dict[str, type[Any]] = {
    one.__name__: one
    for one in (
        HistoryGroup,
        HistorySpan,
        DumpPiece,
        RestPiece,
        TradeDumpPiece,
        DayPiece,
        DayGroup,
        SeriesFilePiece,
        SeriesRestPiece,
        SeriesGroup,
        InboxFile,
        LoadCounts,
        TradeDumpCounts,
        Reconciled,
        InboxResult,
    )
}
"""Types that a later task reads."""


def to_json(value: Any) -> Any:
    """Convert a task's result to JSON values; times become ISO text.

    Raises:
        TypeError: JSON cannot represent a part of the value exactly, such as a Decimal.
    """
    if is_dataclass(value) and not isinstance(value, type):
        name = type(value).__name__
        tag = {TYPE: name} if TYPES.get(name) is type(value) else {}
        return tag | {one.name: to_json(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, dict):
        return {str(key): to_json(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(part) for part in value]
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise TypeError(f"a job returned a {type(value).__name__}; results must be plain JSON")


def from_json(value: Any) -> Any:
    """Convert JSON values back to pieces and results; sequences become tuples.

    Values not written by ``to_json``, such as the parameters of a run, are returned unchanged.

    Raises:
        PermanentError: a type is unknown or has other fields, for example after an upgrade within a
            run.
    """
    if isinstance(value, dict):
        parts = {key: from_json(part) for key, part in value.items()}
        if TYPE not in parts:
            return parts
        name = parts.pop(TYPE)
        try:
            return TYPES[name](**parts)
        except (KeyError, TypeError) as error:
            raise PermanentError(
                f"cannot read a {name} with the fields {', '.join(parts)} ({error}): clear the "
                "task that planned it"
            ) from error
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return tuple(from_json(part) for part in value)
    return value
