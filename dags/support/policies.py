"""Settings that all DAGs share: retry policy, pools, the asset, and the task wrapper ``job``.

``include`` is imported inside functions only: Airflow parses the DAG files every minute.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
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
"""Signals that candles were written. Consumers read changes from the change log."""

POOL_REST = "binance_rest"
POOL_DBT = "dbt"
"""``pools.json`` defines both pools and their sizes."""

HIGH_PRIORITY: dict[str, Any] = {"priority_weight": 10, "weight_rule": "absolute"}
"""Priority of short scheduled tasks, so that they do not wait behind a long load."""


class RetryTransient(RetryPolicy):
    """Retry errors that can go away; fail immediately on all others.

    ==================  ==========================================================
    RateLimitedError    retried after the delay that the exchange asked for
    TransientError      retried with the task's backoff and jitter
    a failed dbt build  as above: dbt does not report lost connections separately
    anything else       fails: a PermanentError, or a bug
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
            return RetryDecision.retry(delay, reason="rate limited by the exchange")
        if isinstance(exception, (TransientError, CosmosDbtRunError)):
            return RetryDecision.default()
        return RetryDecision.fail(f"{type(exception).__name__}: a retry would not help")


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
"""Arguments of every ``@dag``. Tasks report failures; the DAG's callback also reports timeouts."""

DAILY_DAG_ARGS: dict[str, Any] = {
    "schedule": CronDataIntervalTimetable("0 0 * * *", timezone="UTC"),
    "start_date": datetime(2026, 1, 1, tzinfo=UTC),
    "max_active_runs": 2,
    "max_active_tasks": 2,  # leaves one pool slot to repair_gaps and sync_instruments
    "dagrun_timeout": timedelta(days=2),
    **DAG_ARGS,
}
"""Arguments of a ``@dag`` whose runs each cover one UTC day."""

Arguments = ParamSpec("Arguments")


def settings() -> Settings:
    """Read the settings from the task's environment."""
    from include.config import load_settings

    return load_settings()


def refuse_long_plan(tasks: int) -> None:
    """Refuse a plan that Airflow cannot map, and say what to set.

    Raises:
        PermanentError: it has more tasks than ``max_map_length``.
    """
    from airflow.configuration import conf

    from include.counts import counted
    from include.errors import PermanentError

    limit = conf.getint("core", "max_map_length")
    if tasks > limit:
        raise PermanentError(
            f"the plan has {counted(tasks, 'task')}, and this Airflow maps {limit} at most: set "
            f"AIRFLOW__CORE__MAX_MAP_LENGTH to {tasks} or more"
        )


def job(
    function: Callable[Arguments, Any] | None = None, /, *, emits: Asset | None = None
) -> Callable[..., Any]:
    """Convert a task's JSON arguments to typed objects, and its result to JSON for XCom.

    Args:
        function: the task body.
        emits: an outlet of the task; its event carries the result as ``extra``.
    """
    if function is None:
        return functools.partial(job, emits=emits)

    @functools.wraps(function)
    def body(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Any:
        from include.jobs.task_json import from_json, to_json

        typed = {name: from_json(value) for name, value in kwargs.items()}
        result = to_json(function(*map(from_json, args), **typed))
        if isinstance(result, list):
            refuse_long_plan(len(result))
        if emits is not None:
            get_current_context()["outlet_events"][emits].extra = result
        return result

    return body
