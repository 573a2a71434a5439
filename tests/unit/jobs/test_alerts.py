"""A failure is reported once to its webhook, and reporting it fails nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime

import httpx
import pytest
from structlog.testing import capture_logs

from include.config import load_settings
from include.jobs import alerts
from include.jobs.alerts import MAX_ERROR_CHARACTERS, Alert, payload_of, send_alert

URL = "https://hooks.test/services/T0/B0/s3cret-part"
ALERT = Alert(
    event="task_failed",
    dag_id="backfill_history",
    run_id="manual__2026-11-21",
    task_id="load",
    map_index_label="BTCUSDT 2024-01",
    try_number=5,
    max_tries=5,
    error_class="PermanentError",
    error="no symbol <FOO> & no more",
    log_url="http://airflow.test/log",
    data_interval_start=datetime(2026, 11, 20, tzinfo=UTC),
)


class Webhook(httpx.BaseTransport):
    """Answers in turn, the last answer for good; keeps what it was sent."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []
        self.slept: list[float] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def send(self, url: str = URL) -> bool:
        return send_alert(
            settings=load_settings(alert_webhook_url=url),
            alert=ALERT,
            transport=self,
            sleep=self.slept.append,
        )


def ok() -> httpx.Response:
    return httpx.Response(200, text="ok")


def test_alert_is_posted_as_json_to_the_exact_url() -> None:
    webhook = Webhook(ok())
    assert webhook.send() is True
    (request,) = webhook.requests
    assert (request.method, str(request.url)) == ("POST", URL)
    assert request.headers["Content-Type"] == "application/json"
    assert request.extensions["timeout"]["read"] == alerts.TIMEOUT_S
    told = json.loads(request.content)
    assert told["text"].splitlines()[0] == (
        "*Candelabra: task failed* – `load` (BTCUSDT 2024-01) of `backfill_history`, try 5 of 5"
    )
    assert told["error"] == "no symbol <FOO> & no more"
    assert told["data_interval_start"] == "2026-11-20T00:00:00+00:00"
    assert told["data_interval_end"] is None


def test_slack_markup_is_escaped_only_in_its_text() -> None:
    text = str(payload_of(ALERT)["text"])
    assert "PermanentError: no symbol &lt;FOO&gt; &amp; no more" in text
    assert "<http://airflow.test/log|log>" in text


def test_long_errors_are_truncated() -> None:
    payload = payload_of(Alert("run_failed", "build_marts", "run", error="x" * 100_000))
    assert len(str(payload["error"])) == MAX_ERROR_CHARACTERS + 2
    assert len(str(payload["text"])) < MAX_ERROR_CHARACTERS + 200


def test_nothing_is_sent_without_a_webhook() -> None:
    webhook = Webhook(ok())
    assert webhook.send(url="") is False
    assert webhook.requests == []


@pytest.mark.parametrize(
    "first",
    [httpx.Response(503), httpx.Response(429, headers={"Retry-After": "3"}), httpx.ReadTimeout("")],
)
def test_busy_webhook_is_retried(first: httpx.Response | Exception) -> None:
    webhook = Webhook(first, ok())
    assert webhook.send() is True
    assert len(webhook.requests) == 2
    min_s = 3 if isinstance(first, httpx.Response) and first.status_code == 429 else 0
    assert webhook.slept[0] >= min_s


@pytest.mark.parametrize(
    ("answer", "tries"),
    [
        (lambda: httpx.Response(500), alerts.ATTEMPTS),
        (lambda: httpx.Response(429, headers={"Retry-After": "3600"}), 1),
        (lambda: httpx.Response(404, text=URL), 1),
        (lambda: httpx.Response(302, headers={"Location": "https://elsewhere.test"}), 1),
        (lambda: httpx.ConnectError("refused"), alerts.ATTEMPTS),
    ],
)
def test_failed_webhook_is_logged_without_the_secret_and_raises_nothing(
    answer: Callable[[], httpx.Response | Exception], tries: int
) -> None:
    webhook = Webhook(answer())
    with capture_logs() as logs:
        assert webhook.send() is False
    assert len(webhook.requests) == tries
    assert logs[-1]["event"] == "alert_not_sent"
    assert "hooks.test" in logs[-1]["error"]
    assert "s3cret" not in str(logs)


def test_http_library_does_not_log_the_url(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG"):
        assert Webhook(ok()).send() is True
    assert "s3cret" not in caplog.text
