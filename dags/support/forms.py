"""The fields of the trigger forms, and the time span that a run covers."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import Param

SOME_SYMBOLS = r"^\s*[^\s,]+(\s*,\s*[^\s,]+)*\s*$"
NO_OR_SOME_SYMBOLS = rf"^\s*$|{SOME_SYMBOLS}"

MOMENT = r"^\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)?)?$"
"""A date or a time in ISO 8601, UTC where no zone is given. Airflow checks no ``format``."""


def span_params(done: str, *, default: str | None) -> dict[str, Param]:
    """The fields *From* and *To* of a form; ``window`` reads them.

    Args:
        done: what happens to the minutes of the span: "loaded", "checked".
        default: length of the span where *From* is empty, in words; None: all of history.
    """
    empty = "where the symbol's history begins" if default is None else f"{default} before *To*"
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
            ("from", f"First minute to be {done}, UTC. Empty: {empty}."),
            ("to", f"End, UTC, itself not {done}. Empty: the moment the run was asked for."),
        )
    }


def kept_symbols_params() -> dict[str, Param]:
    """The fields of a daily run, which is about all symbols that are kept up unless it is told."""
    return {
        "symbols": Param(
            "",
            type="string",
            pattern=NO_OR_SOME_SYMBOLS,
            title="Symbols",
            description="Names, separated by commas. Empty: all that the table is kept up with.",
        ),
        "market": market_param(),
    }


def market_param() -> Param:
    """The field for the market of symbols that do not name theirs."""
    return Param(
        "spot",
        type="string",
        enum=["spot", "um"],
        values_display={"spot": "Spot", "um": "USD-M perpetual"},
        title="Market",
        description="Where symbols without `.P` are traded.",
    )


def data_interval(dag_run: Any) -> dict[str, datetime]:
    """The data interval of a run as ``start`` and ``end``.

    A run that was triggered by hand without a date is about the UTC day before.
    """
    if dag_run.data_interval_start is not None and dag_run.data_interval_end is not None:
        return {"start": dag_run.data_interval_start, "end": dag_run.data_interval_end}
    midnight = dag_run.run_after.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return {"start": midnight - timedelta(days=1), "end": midnight}


def window(
    params: Mapping[str, Any], *, now: datetime, days: int | None
) -> dict[str, datetime | None]:
    """The span of time that a run is about, in whole minutes of UTC, as ``start`` and ``end``.

    Args:
        params: of the form; ``from`` and ``to`` may be empty.
        now: when the run was asked for. It is kept with the run, so that a run that is cleared
            and done again is about the same span; the clock would move it.
        days: length of the span where ``from`` is empty; None: ``start`` is None then.

    Raises:
        PermanentError: a time cannot be read, or the span is empty.
    """
    from include.errors import PermanentError

    end = _minute(_moment(params, "to") or now)
    begun = _moment(params, "from") or (None if days is None else end - timedelta(days=days))
    start = None if begun is None else _minute(begun)
    if start is not None and start >= end:
        raise PermanentError(
            f"the span from {start:%Y-%m-%dT%H:%MZ} to {end:%Y-%m-%dT%H:%MZ} is empty: "
            "'from' should be before 'to'"
        )
    return {"start": start, "end": end}


def changes_or_window(params: Mapping[str, Any], *, now: datetime) -> dict[str, Any]:
    """What a run of the checks is about: what changed, or, where the form has one, a span of time.

    Args:
        params, now: as of ``window``; a span that has an end alone is of one day.
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
