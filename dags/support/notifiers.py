"""Send an alert when a task or a DAG run fails.

A task's callback runs in the task's process after the last try; a run's callback runs in the DAG
processor. ``include.jobs.alerts`` formats and sends the alert.
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
    """Sends the alert to ALERT_WEBHOOK_URL, if that is set."""

    def notify(self, context: Context) -> None:
        """Send the alert; a failure to send is logged and not raised."""
        from include.config import load_settings
        from include.jobs.alerts import Alert, send_alert

        settings = load_settings()
        if settings.alert_webhook_url:
            mask_secret(settings.alert_webhook_url)
            send_alert(settings=settings, alert=Alert(**self.alert(context)))

    def alert(self, context: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of ``include.jobs.alerts.Alert``."""
        raise NotImplementedError


class TaskFailed(_WebhookNotifier):
    """``on_failure_callback`` of a task: called after the last try."""

    def alert(self, context: Mapping[str, Any]) -> dict[str, Any]:
        """Describe the task and its error."""
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
    """``on_failure_callback`` of a DAG: called when a run fails or times out."""

    def alert(self, context: Mapping[str, Any]) -> dict[str, Any]:
        """Describe the run; ``error`` is Airflow's reason."""
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
    """Return the run's data interval; the DAG processor may know only the run's id."""
    run = context.get("dag_run")
    return {name: getattr(run, name, None) for name in ("data_interval_start", "data_interval_end")}
