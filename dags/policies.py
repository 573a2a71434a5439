"""What all DAGs share: retries, error policy, assets, pools, and how a job becomes a task.

Nothing of ``include`` is imported while DAG files are parsed; it would be paid every minute.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING, Any, ParamSpec

from airflow.sdk import (
    Asset,
    CronDataIntervalTimetable,
    Param,
    RetryDecision,
    RetryPolicy,
    conf,
    get_current_context,
)

from dags.alerts import RunFailed, TaskFailed

if TYPE_CHECKING:
    from airflow.sdk import Context

    from include.config import Settings

CANDLES_1M = Asset(
    name="market.candles_1m",
    uri="candelabra://market/candles_1m",
    group="market",
)
"""Candles were written. A wake-up, never a work list: what changed stands in the change log."""

POOL_REST = "binance_rest"
POOL_DBT = "dbt"
"""Both are defined, with their sizes, in ``pools.json``."""

FIRST_IN_POOL: dict[str, Any] = {"priority_weight": 10, "weight_rule": "absolute"}
"""Of short tasks that are due by the clock: a long load does not keep them waiting."""

SOME_SYMBOLS = r"^\s*[^\s,]+(\s*,\s*[^\s,]+)*\s*$"
NO_OR_SOME_SYMBOLS = rf"^\s*$|{SOME_SYMBOLS}"

MOMENT = r"^\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)?)?$"
"""A date or a time in ISO 8601, UTC where no zone is given. Airflow checks no ``format``."""

DBT_CACHE = Path(conf.get("cosmos", "cache_dir", fallback=gettempdir())) / "candelabra"
"""dbt's parsed project, between runs."""


class RetryTransient(RetryPolicy):
    """Retry what a retry can help, and nothing else.

    ==================  ==========================================================
    RateLimitedError    retried when the exchange wants to hear from us again
    TransientError      retried with the task's backoff and jitter
    a failed dbt build  the same: dbt does not tell a lost connection from an error
    anything else       fails at once: PermanentError, or an error of ours
    ==================  ==========================================================
    """

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,
        max_tries: int,
        context: Context | None = None,
    ) -> RetryDecision:
        from cosmos.exceptions import CosmosDbtRunError

        from include.errors import RateLimitedError, TransientError

        if isinstance(exception, RateLimitedError):
            delay = timedelta(seconds=exception.retry_after_s + 1)
            return RetryDecision.retry(delay, reason="the exchange asked us to wait")
        if isinstance(exception, (TransientError, CosmosDbtRunError)):
            return RetryDecision.default()
        return RetryDecision.fail(f"{type(exception).__name__}: a retry would change nothing")


DEFAULT_ARGS: dict[str, Any] = {
    "owner": "candelabra",
    "depends_on_past": False,
    "retry_policy": RetryTransient(),
    "retries": 4,
    "retry_delay": timedelta(seconds=15),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(minutes=10),
    "execution_timeout": timedelta(hours=1),
    "on_failure_callback": TaskFailed(),
}

DAG_ARGS: dict[str, Any] = {
    "catchup": False,
    "on_failure_callback": RunFailed(),
}
"""Of every ``@dag``. A failed task is told by itself; a run's end tells also of time-outs."""

DAILY_DAG_ARGS: dict[str, Any] = {
    "schedule": CronDataIntervalTimetable("0 0 * * *", timezone="UTC"),
    "start_date": datetime(2026, 1, 1, tzinfo=UTC),
    "max_active_runs": 2,
    "max_active_tasks": 2,  # one slot of the pool is left to repairs and the registry
    "dagrun_timeout": timedelta(days=2),
    **DAG_ARGS,
}
"""Of a ``@dag`` that is about whole UTC days, one a run."""

Arguments = ParamSpec("Arguments")


def settings() -> Settings:
    """The settings of this task, from its environment."""
    from include.config import load_settings

    return load_settings()


def job(
    function: Callable[Arguments, Any] | None = None, /, *, emits: Asset | None = None
) -> Callable[..., Any]:
    """Make a task body of a function that calls a job.

    Its result goes to XCom as plain JSON: dataclasses become mappings, times ISO strings.

    Args:
        function: the task body.
        emits: an outlet of the task whose event carries the result as its ``extra``.
    """
    if function is None:
        return functools.partial(job, emits=emits)

    @functools.wraps(function)
    def body(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Any:
        result = as_json(function(*args, **kwargs))
        if emits is not None:
            get_current_context()["outlet_events"][emits].extra = result
        return result

    return body


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


def connect_dbt(context: Any, operator: Any) -> None:
    """Give a dbt operator its database, when it runs; a Cosmos interceptor.

    Not at parse time, and in no template: the rendered fields of a task can be read in the UI.
    """
    from include.jobs.dbt_env import dbt_environment

    current = settings()
    environment = dbt_environment(current.url_for("dbt"), home=current.candelabra_home)
    # Cosmos runs dbt in a copy of the project and looks for its files there.
    own = {"DBT_PROJECT_DIR", "DBT_PROFILES_DIR", "DBT_TARGET_PATH", "DBT_LOG_PATH"}
    operator.env = {name: value for name, value in environment.items() if name not in own}


def as_json(value: Any) -> Any:
    """The value in terms of JSON.

    Raises:
        TypeError: it has a part that JSON has no word for, a Decimal among them.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return as_json(asdict(value))
    if isinstance(value, dict):
        return {str(key): as_json(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(part) for part in value]
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise TypeError(f"a job returned {type(value).__name__}; XCom takes JSON: keys and counts")
