"""Post an alert to a webhook when a run fails: Slack's ``text``, and the details as fields."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from time import sleep as _sleep
from urllib.parse import urlsplit

import httpx
import structlog

from include.backoff import Backoff, retried
from include.config import Settings
from include.errors import CandelabraError, PermanentError, RateLimitedError, TransientError

log = structlog.get_logger(__name__)

TIMEOUT_S = 5.0
ATTEMPTS = 3
MAX_ELAPSED_S = 15.0
"""The failed task's process waits this long, plus the last request's timeout."""
BACKOFF = Backoff(first_s=0.5, max_s=4.0)

MAX_ERROR_CHARACTERS = 1_500
"""A failed dbt build prints pages of output; the task log has all of it."""

_TITLES = {
    "task_failed": "task failed",
    "run_failed": "run failed",
    "run_timed_out": "run timed out",
}


@dataclass(frozen=True, slots=True)
class Alert:
    """A failure to report.

    Attributes:
        event: ``task_failed``, ``run_failed`` or ``run_timed_out``.
        task_id: empty for a whole run.
        map_index_label: label of the mapped task's piece; empty for other tasks.
        try_number, max_tries: of the task; None for a run.
        error_class: exception class of the task's last try; empty for a run.
        error: message of that exception; for a run, Airflow's reason.
        log_url: link to the log.
        data_interval_start, data_interval_end: None where the run has none.
    """

    event: str
    dag_id: str
    run_id: str
    task_id: str = ""
    map_index_label: str = ""
    try_number: int | None = None
    max_tries: int | None = None
    error_class: str = ""
    error: str = ""
    log_url: str = ""
    data_interval_start: datetime | None = None
    data_interval_end: datetime | None = None


def send_alert(
    *,
    settings: Settings,
    alert: Alert,
    transport: httpx.BaseTransport | None = None,
    sleep: Callable[[float], None] = _sleep,
) -> bool:
    """Post an alert to ALERT_WEBHOOK_URL; return whether the webhook accepted it.

    Does nothing if the setting is empty. If the webhook is unreachable or refuses, that is logged
    and nothing is raised: reporting a failure must not cause another one. The URL is a secret, so
    only its host is logged.

    Args:
        transport: None for the network.
        sleep: waits between attempts.
    """
    url = settings.alert_webhook_url
    if not url:
        return False
    # Use the transport without a client: a client logs each request with its whole URL.
    with transport or httpx.HTTPTransport(proxy=settings.proxy_for(url) or None) as opened:
        try:
            retried(
                lambda: _post(opened, url, payload_of(alert)),
                backoff=BACKOFF,
                attempts=ATTEMPTS,
                max_elapsed_s=MAX_ELAPSED_S,
                on_retry=partial(log.info, "alert_retried"),
                sleep=sleep,
            )
        except CandelabraError as error:
            log.warning("alert_not_sent", alert=alert.event, dag_id=alert.dag_id, error=str(error))
            return False
    log.info("alert_sent", alert=alert.event, dag_id=alert.dag_id, host=_host(url))
    return True


def payload_of(alert: Alert) -> dict[str, object]:
    """Return the JSON of an alert: ``text`` in Slack's markup, and fields; times in ISO 8601."""
    fields = asdict(alert) | {"error": _shortened(alert.error)}
    for name in ("data_interval_start", "data_interval_end"):
        moment = fields[name]
        fields[name] = moment.astimezone(UTC).isoformat() if moment else None
    return {"text": _text(alert), **fields}


def _text(alert: Alert) -> str:
    subject = f"`{_escaped(alert.dag_id)}`"
    if alert.task_id:
        label = f" ({_escaped(alert.map_index_label)})" if alert.map_index_label else ""
        subject = f"`{_escaped(alert.task_id)}`{label} of {subject}"
    tries = ""
    if alert.try_number is not None and alert.max_tries is not None:
        tries = f", try {alert.try_number} of {alert.max_tries}"
    lines = [f"*Candelabra: {_TITLES.get(alert.event, alert.event)}* – {subject}{tries}"]
    reason = ": ".join(filter(None, [alert.error_class, _shortened(alert.error)]))
    if reason:
        lines.append(f"```{_escaped(reason)}```")
    lines.append(f"run `{_escaped(alert.run_id)}`")
    if alert.log_url:
        lines[-1] += f" – <{alert.log_url}|log>"
    return "\n".join(lines)


def _escaped(text: str) -> str:
    """Escape the three characters of https://docs.slack.dev/messaging/formatting-message-text."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_ERROR_CHARACTERS else f"{text[:MAX_ERROR_CHARACTERS]} …"


def _host(url: str) -> str:
    return urlsplit(url).hostname or ""


def _post(transport: httpx.BaseTransport, url: str, payload: dict[str, object]) -> None:
    request = httpx.Request(
        "POST",
        url,
        content=json.dumps(payload).encode(),
        headers={"Content-Type": "application/json", "User-Agent": "candelabra"},
        extensions={"timeout": httpx.Timeout(TIMEOUT_S).as_dict()},
    )
    try:
        answer = transport.handle_request(request)
        answer.read()
        answer.close()
    except httpx.TransportError as error:
        reason = str(error) or type(error).__name__
        raise TransientError(f"no answer from the webhook at {_host(url)}: {reason}") from error
    status = answer.status_code
    if 200 <= status < 300:
        return
    message = f"the webhook at {_host(url)} answered {status}"
    if status == 429 or status >= 500:
        retry_after = answer.headers.get("retry-after", "")
        if retry_after.isdigit():
            raise RateLimitedError(message, retry_after_s=float(retry_after))
        raise TransientError(message)
    raise PermanentError(f"{message}; ALERT_WEBHOOK_URL must accept a POST of JSON")
