"""Airflow's side of alerts: what its callbacks know, handed to ``include.jobs.alerts``.

A task's callback runs in the task's own process after its last try, a run's in the DAG processor.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.sdk import BaseNotifier, conf
from airflow.sdk.log import mask_secret

if TYPE_CHECKING:
    from airflow.sdk import Context


class _WebhookNotifier(BaseNotifier):
    """Posts what ``alert`` makes of the context to ALERT_WEBHOOK_URL, if there is one."""

    def notify(self, context: Context) -> None:
        """Post; a webhook that does not take it is logged there and raises nothing."""
        from include.config import load_settings
        from include.jobs.alerts import Alert, send_alert

        settings = load_settings()
        if settings.alert_webhook_url:
            mask_secret(settings.alert_webhook_url)
            send_alert(settings=settings, alert=Alert(**self.alert(context)))

    def alert(self, context: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of ``include.jobs.alerts.Alert``."""
        raise NotImplementedError


class TaskFailed(_WebhookNotifier):
    """For ``on_failure_callback`` of a task: after the last try, and where none is left."""

    def alert(self, context: Mapping[str, Any]) -> dict[str, Any]:
        """What is known of the task and its error."""
        ti = context["ti"]
        error = context.get("exception")
        is_mapped = ti.map_index is not None and ti.map_index >= 0
        return {
            "event": "task_failed",
            "dag_id": ti.dag_id,
            "run_id": ti.run_id,
            "task_id": ti.task_id,
            "map_index_label": str(ti.rendered_map_index or ti.map_index) if is_mapped else "",
            "try_number": ti.try_number,
            "max_tries": (ti.max_tries or 0) + 1,
            "error_class": type(error).__name__ if isinstance(error, BaseException) else "",
            "error": "" if error is None else str(error),
            "log_url": ti.log_url,
            **_interval(context),
        }


class RunFailed(_WebhookNotifier):
    """For ``on_failure_callback`` of a DAG: a run that failed or was longer than it may be."""

    def alert(self, context: Mapping[str, Any]) -> dict[str, Any]:
        """What is known of the run; ``reason`` is Airflow's word for why it failed."""
        dag_id, run_id = context["dag"].dag_id, str(context["run_id"])
        reason = str(context.get("reason") or "")
        base = conf.get("api", "base_url", fallback="").rstrip("/")
        return {
            "event": "run_timed_out" if reason == "timed_out" else "run_failed",
            "dag_id": dag_id,
            "run_id": run_id,
            "error": reason,
            "log_url": f"{base}/dags/{dag_id}/runs/{quote(run_id, safe='')}" if base else "",
            **_interval(context),
        }


def _interval(context: Mapping[str, Any]) -> dict[str, Any]:
    """The run's data interval; the DAG processor may know the run's name alone."""
    run = context.get("dag_run")
    return {name: getattr(run, name, None) for name in ("data_interval_start", "data_interval_end")}
