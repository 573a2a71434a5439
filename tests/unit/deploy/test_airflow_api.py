"""The REST client, against a fake transport."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime

import httpx
import pytest

from deploy.local import airflow_api
from deploy.local.airflow_api import AirflowApi
from include.errors import PermanentError, TransientError

RUN = {
    "dag_id": "d", "dag_run_id": "manual__1", "state": "running", "run_type": "manual",
    "logical_date": None, "start_date": None, "end_date": None,
}  # fmt: skip
TASK = {
    "task_id": "load", "map_index": 0, "rendered_map_index": "BTCUSDT 2024-01",
    "state": "failed", "try_number": 2, "duration": 1.5,
}  # fmt: skip


class Server:
    """Answers by path, records requests, and issues numbered tokens."""

    def __init__(self, answers):
        self.answers = answers
        self.asked = []
        self.tokens = itertools.count(1)
        self.valid_from = 1

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/auth/token":
            if json.loads(request.content)["password"] != "right":
                return httpx.Response(401)
            return httpx.Response(201, json={"access_token": str(next(self.tokens))})
        token = int(request.headers["Authorization"].removeprefix("Bearer "))
        if token < self.valid_from:
            return httpx.Response(401)
        self.asked.append(request)
        answer = self.answers[request.method, request.url.path]
        answer = answer(request) if callable(answer) else answer
        if isinstance(answer, httpx.Response):
            return answer
        return httpx.Response(200, json=answer)


def connect(answers, *, password="right", **arguments):  # noqa: S107
    server = Server(answers)
    api = AirflowApi(
        "http://airflow",
        username="admin",
        password=password,
        transport=httpx.MockTransport(server),
        **arguments,
    )
    return api, server


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(airflow_api, "POLL_INTERVAL_S", 0.001)


def test_trigger_sends_params_and_logical_date_and_returns_the_run_id():
    api, server = connect({("POST", "/api/v2/dags/d/dagRuns"): RUN})
    when = datetime(2024, 1, 2, tzinfo=UTC)
    assert api.trigger("d", {"symbols": "BTCUSDT"}, logical_date=when) == "manual__1"
    assert json.loads(server.asked[0].content) == {
        "conf": {"symbols": "BTCUSDT"},
        "logical_date": "2024-01-02T00:00:00+00:00",
    }


def test_expired_token_is_renewed_once():
    api, server = connect({("POST", "/api/v2/dags/d/dagRuns"): RUN})
    api.trigger("d")
    server.valid_from = 2
    assert api.trigger("d") == "manual__1"
    assert len(server.asked) == 2


def test_wrong_password_is_a_permanent_error():
    api, _ = connect({}, password="wrong")
    with pytest.raises(PermanentError, match="refused the login of 'admin'"):
        api.dag_ids()


@pytest.mark.parametrize(
    ("status", "error"), [(404, PermanentError), (422, PermanentError), (503, TransientError)]
)
def test_error_status_is_transient_or_permanent(status, error):
    refusal = httpx.Response(status, text="because")
    api, _ = connect({("POST", "/api/v2/dags/d/dagRuns"): refusal})
    with pytest.raises(error, match=f"{status} to POST /api/v2/dags/d/dagRuns: because"):
        api.trigger("d")


def test_unreachable_server_is_a_transient_error():
    def refuse(request):
        raise httpx.ConnectError("refused", request=request)

    api = AirflowApi(
        "http://airflow", username="a", password="b", transport=httpx.MockTransport(refuse)
    )
    with pytest.raises(TransientError, match="refused"):
        api.dag_ids()


def test_wait_run_reports_each_change_and_returns_the_state():
    states = iter(["queued", "running", "running", "running", "success"])
    api, _ = connect(
        {
            ("GET", "/api/v2/dags/d/dagRuns/manual__1"): lambda _: {**RUN, "state": next(states)},
            ("GET", "/api/v2/dags/d/dagRuns/manual__1/taskInstances"): {
                "task_instances": [TASK],
                "total_entries": 1,
            },
        }
    )
    seen = []
    state = api.wait_run(
        "d", "manual__1", timeout_s=5, on_progress=lambda run, tasks: seen.append(run.state)
    )
    assert state == "success"
    assert seen == ["queued", "running", "success"]


def test_waits_outlast_a_restart_of_the_server():
    away = itertools.cycle([True, True, False])
    path = "/api/v2/dags/d/dagRuns/manual__1"

    def once_in_three(answer):
        return lambda _: httpx.Response(503) if next(away) else answer

    api, _ = connect(
        {
            ("GET", path): once_in_three({**RUN, "state": "success"}),
            ("GET", "/api/v2/dags"): once_in_three({"dags": [{"dag_id": "d"}]}),
        }
    )
    assert api.wait_run("d", "manual__1", timeout_s=5) == "success"
    api.wait_dags(["d"], timeout_s=5)


def test_wait_run_lists_open_tasks_after_the_timeout():
    tasks = {"task_instances": [{**TASK, "state": "running"}], "total_entries": 1}
    path = "/api/v2/dags/d/dagRuns/manual__1"
    api, _ = connect({("GET", path): RUN, ("GET", f"{path}/taskInstances"): tasks})
    with pytest.raises(TransientError, match=r"load \[BTCUSDT 2024-01\]: running"):
        api.wait_run("d", "manual__1", timeout_s=0.0)


def test_wait_fails_when_a_process_ends():
    def died():
        raise PermanentError("airflow scheduler ended with exit code 1")

    api, server = connect({}, while_waiting=died)
    with pytest.raises(PermanentError, match="scheduler"):
        api.wait_run("d", "manual__1", timeout_s=60)
    assert server.asked == []


def test_task_states_are_read_page_by_page():
    everything = [{**TASK, "map_index": n} for n in range(250)]

    def page(request):
        offset = int(request.url.params["offset"])
        return {"task_instances": everything[offset : offset + 100], "total_entries": 250}

    api, _ = connect({("GET", "/api/v2/dags/d/dagRuns/r/taskInstances"): page})
    assert [task.map_index for task in api.task_states("d", "r")] == list(range(250))


def test_wait_next_run_returns_the_oldest_unknown_run_of_its_type():
    rows = [
        {**RUN, "dag_run_id": "asset__3", "run_type": "asset_triggered"},
        {**RUN, "dag_run_id": "asset__2", "run_type": "asset_triggered"},
        {**RUN, "dag_run_id": "scheduled__1", "run_type": "scheduled"},
        {**RUN, "dag_run_id": "asset__1", "run_type": "asset_triggered"},
    ]
    api, _ = connect({("GET", "/api/v2/dags/d/dagRuns"): {"dag_runs": rows}})
    found = api.wait_next_run("d", run_type="asset_triggered", known=["asset__1"], timeout_s=5)
    assert found == "asset__2"


def test_failures_show_the_failed_task_with_its_error():
    path = "/api/v2/dags/d/dagRuns/r/taskInstances"
    content = [
        {"event": "::group::Pre Execute", "sources": []},
        {"event": "asked", "level": "info", "timestamp": "2026-01-01T00:00:00Z", "symbol": "X"},
        {"event": "Task failed", "error_detail": [{"exc_type": "E", "exc_value": "no such"}]},
    ]
    api, server = connect(
        {
            ("GET", path): {
                "task_instances": [TASK, {**TASK, "map_index": 1, "state": "success"}],
                "total_entries": 2,
            },
            ("GET", f"{path}/load/logs/2"): {"content": content, "continuation_token": None},
        }
    )
    assert api.failures("d", "r") == (
        "d · load [BTCUSDT 2024-01] failed:\nasked symbol=X\nTask failed\nE: no such"
    )
    assert server.asked[-1].url.params["map_index"] == "0"


def test_import_error_ends_the_wait_for_dags():
    api, _ = connect(
        {
            ("GET", "/api/v2/dags"): {"dags": [{"dag_id": "other"}]},
            ("GET", "/api/v2/importErrors"): {
                "import_errors": [{"filename": "d.py", "stack_trace": "ImportError: x"}]
            },
        }
    )
    with pytest.raises(PermanentError, match=r"cannot import d\.py:\nImportError: x"):
        api.wait_dags(["d"], timeout_s=60)
