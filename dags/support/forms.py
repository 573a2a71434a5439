"""Fields of the trigger forms, and the time span that a run covers."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import Param

REQUIRED_SYMBOLS = r"^\s*[^\s,]+(\s*,\s*[^\s,]+)*\s*$"
OPTIONAL_SYMBOLS = rf"^\s*$|{REQUIRED_SYMBOLS}"

MOMENT = r"^\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)?)?$"
"""ISO 8601 date or time, UTC by default. Airflow does not check a Param's ``format``."""


def span_params(done: str, *, default: str | None) -> dict[str, Param]:
    """Return the fields *From* and *To*; ``window`` reads them.

    Args:
        done: what happens to the minutes: "load", "check".
        default: what an empty *From* means; None: the beginning of the history.
    """
    empty = default or "the beginning of the symbol's history"
    return {
        name: Param(
            None,
            type=["null", "string"],
            format="date-time",
            pattern=MOMENT,
            title=name.title(),
            description=description,
        )
        for name, description in (
            ("from", f"First minute to {done}, in UTC. Empty: {empty}."),
            ("to", "End of the span, in UTC, exclusive. Empty: the time of the trigger."),
        )
    }


def daily_params() -> dict[str, Param]:
    """Return the form fields of a daily DAG, which covers all active symbols by default."""
    return {
        "symbols": Param(
            "",
            type="string",
            pattern=OPTIONAL_SYMBOLS,
            title="Symbols",
            description="Comma-separated. Empty: all symbols with rows in the past week.",
        ),
        "market": market_param(),
    }


def market_param() -> Param:
    """Return the field for the market of symbols without a suffix."""
    return Param(
        "spot",
        type="string",
        enum=["spot", "um", "cm"],
        values_display={"spot": "Spot", "um": "USD-M futures", "cm": "COIN-M futures"},
        title="Market",
        description="Market of symbols that do not show it: without `.P` (USD-M) and `_` (COIN-M).",
    )


def data_interval(dag_run: Any) -> dict[str, datetime]:
    """Return the data interval of a run as ``start`` and ``end``.

    A manual run without a logical date covers the previous UTC day.
    """
    if dag_run.data_interval_start is not None and dag_run.data_interval_end is not None:
        return {"start": dag_run.data_interval_start, "end": dag_run.data_interval_end}
    midnight = dag_run.run_after.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return {"start": midnight - timedelta(days=1), "end": midnight}


def window(
    params: Mapping[str, Any], *, now: datetime, days: int | None
) -> dict[str, datetime | None]:
    """Return the time span of a run as ``start`` and ``end``, in whole UTC minutes.

    Args:
        params: of the form; ``from`` and ``to`` may be empty.
        now: when the run was triggered. Airflow stores it, so that a cleared run covers the same
            span again.
        days: length of the span if ``from`` is empty; None: ``start`` is None then.

    Raises:
        PermanentError: a time cannot be parsed, or the span is empty.
    """
    from include.errors import PermanentError

    end = _minute(_moment(params, "to") or now)
    first = _moment(params, "from") or (None if days is None else end - timedelta(days=days))
    start = None if first is None else _minute(first)
    if start is not None and start >= end:
        raise PermanentError(
            f"the span from {start:%Y-%m-%dT%H:%MZ} to {end:%Y-%m-%dT%H:%MZ} is empty: "
            "'from' should be before 'to'"
        )
    return {"start": start, "end": end}


def check_scope(params: Mapping[str, Any], *, now: datetime) -> dict[str, Any]:
    """Return the scope of a quality run: changed rows, or the time span of the form.

    Args:
        params, now: as for ``window``; without ``from`` the span is one day.
    """
    if not (params["from"] or params["to"]):
        return {"scope": "changed"}
    return {"scope": "window", **window(params, now=now, days=1)}


def _moment(params: Mapping[str, Any], name: str) -> datetime | None:
    from include.errors import PermanentError

    if not params[name]:
        return None
    try:
        moment = datetime.fromisoformat(params[name])
    except ValueError as error:
        raise PermanentError(
            f"{name}={params[name]!r}: {error}; it should be like 2024-01-31T00:00:00Z"
        ) from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _minute(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(second=0, microsecond=0)
