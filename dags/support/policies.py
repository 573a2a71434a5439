"""What all DAGs share: retries, pools, the asset, and the wrapper that makes a task of a job.

Nothing of ``include`` is imported while DAG files are parsed; it would be paid every minute.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import asdict, is_dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, ParamSpec

from airflow.sdk import (
    Asset,
    CronDataIntervalTimetable,
    RetryDecision,
    RetryPolicy,
    get_current_context,
)

from dags.support.notifiers import RunFailed, TaskFailed

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
