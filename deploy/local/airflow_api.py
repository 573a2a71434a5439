"""A client of Airflow's REST API (v2): trigger, watch, and read what went wrong."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

import httpx

from include.errors import PermanentError, TransientError

RUN_ENDED = frozenset({"success", "failed"})
TASK_FAILED = frozenset({"failed", "upstream_failed"})
POLL_INTERVAL_S = 0.5


@dataclass(frozen=True)
class Run:
    """One DAG run. ``run_type`` is manual, scheduled, asset_triggered or backfill."""

    dag_id: str
    run_id: str
    state: str
    run_type: str
    logical_date: str | None
    started_at: str | None
    ended_at: str | None


@dataclass(frozen=True)
class TaskState:
    """One task instance; ``map_index`` is -1 where the task is not mapped."""

    task_id: str
    map_index: int
    name: str
    state: str | None
    try_number: int
    duration_s: float | None


def _nothing() -> None:
    return


class AirflowApi:
    """Talks with one API server as one user.

    Args:
        url: base URL of the API server.
        username, password: of the simple auth manager.
        timeout_s: of one request.
        while_waiting: called in every turn of a wait; raises when waiting is vain.
        transport: another way to the server, for tests.
    """

    def __init__(
        self,
        url: str,
        *,
        username: str,
        password: str,
        timeout_s: float = 30.0,
        while_waiting: Callable[[], None] = _nothing,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._login = {"username": username, "password": password}
        self._while_waiting = while_waiting
        self._token: str | None = None
        # No proxy of the environment: the server is on loopback.
        self._http = httpx.Client(
            base_url=url, timeout=timeout_s, trust_env=False, transport=transport
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> AirflowApi:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- runs

    def trigger(
        self,
        dag_id: str,
        conf: Mapping[str, Any] | None = None,
        *,
        logical_date: datetime | None = None,
    ) -> str:
        """Start a run of a DAG with these params; returns the run's id.

        Raises:
            PermanentError: there is no such DAG, or a param is refused.
        """
        body = {
            "conf": dict(conf or {}),
            "logical_date": logical_date.isoformat() if logical_date else None,
        }
        answer = self._ask("POST", f"/api/v2/dags/{quote(dag_id)}/dagRuns", json=body)
        return str(answer["dag_run_id"])

    def run(self, dag_id: str, run_id: str) -> Run:
        """One run as it is now."""
        return _run(self._ask("GET", _run_path(dag_id, run_id)))

    def runs(self, dag_id: str, *, limit: int = 50) -> list[Run]:
        """The latest runs of a DAG, newest first."""
        answer = self._ask(
            "GET",
            f"/api/v2/dags/{quote(dag_id)}/dagRuns",
            params={"order_by": "-run_after", "limit": limit},
        )
        return [_run(row) for row in answer["dag_runs"]]

    def wait_run(
        self,
        dag_id: str,
        run_id: str,
        *,
        timeout_s: float,
        on_progress: Callable[[Run, list[TaskState]], None] | None = None,
    ) -> str:
        """Wait until a run has ended; returns ``success`` or ``failed``.

        ``on_progress`` gets the run and its tasks each time one of their states changed.

        Raises:
            TransientError: it has not ended within ``timeout_s``; the message says where it is.
        """
        seen: object = None
        for _ in self._turns(timeout_s, lambda: self._where(dag_id, run_id)):
            run = self.run(dag_id, run_id)
            if on_progress is not None:
                tasks = self.task_states(dag_id, run_id)
                now = (run.state, [(task.task_id, task.map_index, task.state) for task in tasks])
                if now != seen:
                    seen = now
                    on_progress(run, tasks)
            if run.state in RUN_ENDED:
                return run.state
        raise AssertionError("a wait ends with an answer or an error")

    def wait_next_run(
        self,
        dag_id: str,
        *,
        run_type: str,
        known: Iterable[str] = (),
        timeout_s: float,
    ) -> str:
        """Wait for a run of that type whose id is not ``known``; returns its id.

        Raises:
            TransientError: there was none within ``timeout_s``.
        """
        seen = set(known)
        for _ in self._turns(timeout_s, lambda: f"no new {run_type} run of {dag_id}"):
            for run in reversed(self.runs(dag_id)):
                if run.run_type == run_type and run.run_id not in seen:
                    return run.run_id
        raise AssertionError("a wait ends with an answer or an error")

    # --- tasks

    def task_states(self, dag_id: str, run_id: str) -> list[TaskState]:
        """All task instances of a run, mapped ones one by one."""
        states: list[TaskState] = []
        while True:
            answer = self._ask(
                "GET",
                _run_path(dag_id, run_id) + "/taskInstances",
                params={"limit": 100, "offset": len(states), "order_by": "id"},
            )
            rows = answer["task_instances"]
            states += [_task(row) for row in rows]
            if not rows or len(states) >= answer["total_entries"]:
                return sorted(states, key=lambda task: (task.task_id, task.map_index))

    def task_log_tail(
        self,
        dag_id: str,
        run_id: str,
        task_id: str,
        *,
        map_index: int = -1,
        try_number: int | None = None,
        lines: int = 20,
    ) -> str:
        """The end of a task's log, one line an event, errors with their type and text."""
        path = f"{_run_path(dag_id, run_id)}/taskInstances/{quote(task_id)}"
        if try_number is None:
            own = path if map_index < 0 else f"{path}/{map_index}"
            try_number = max(1, int(self._ask("GET", own)["try_number"]))
        answer = self._ask(
            "GET",
            f"{path}/logs/{try_number}",
            params={"map_index": map_index, "full_content": "true"},
        )
        written = [text for event in answer["content"] for text in _log_lines(event)]
        return "\n".join(written[-lines:]) or "(empty)"

    def failures(self, dag_id: str, run_id: str, *, lines: int = 20) -> str:
        """What to tell about a failed run: each failed task with the end of its log."""
        parts = []
        for task in self.task_states(dag_id, run_id):
            if task.state == "failed":
                end = self.task_log_tail(
                    dag_id,
                    run_id,
                    task.task_id,
                    map_index=task.map_index,
                    try_number=max(1, task.try_number),
                    lines=lines,
                )
                parts.append(f"{dag_id} · {task.name} failed:\n{end}")
        return "\n\n".join(parts) or f"{dag_id}: no failed task in run {run_id}"

    # --- the server

    def health(self) -> dict[str, str | None]:
        """Status of each component: metadatabase, scheduler, triggerer, dag_processor."""
        answer = self._http.get("/api/v2/monitor/health")
        answer.raise_for_status()
        return {name: (part or {}).get("status") for name, part in answer.json().items()}

    def import_errors(self) -> dict[str, str]:
        """DAG files that cannot be read: file and trace."""
        rows = self._ask("GET", "/api/v2/importErrors")["import_errors"]
        return {row["filename"]: row["stack_trace"] for row in rows}

    def dag_ids(self) -> set[str]:
        """The DAGs that the server knows."""
        rows = self._ask("GET", "/api/v2/dags", params={"limit": 100})["dags"]
        return {row["dag_id"] for row in rows}

    def wait_dags(self, dag_ids: Iterable[str], *, timeout_s: float) -> None:
        """Wait until these DAGs can be triggered.

        Raises:
            PermanentError: a DAG file cannot be imported; the message has its trace.
            TransientError: they were not parsed within ``timeout_s``.
        """
        missing = set(dag_ids)
        for _ in self._turns(timeout_s, lambda: f"DAGs not parsed yet: {sorted(missing)}"):
            missing.difference_update(self.dag_ids())
            if not missing:
                return
            for file, trace in self.import_errors().items():
                raise PermanentError(f"Airflow cannot import {file}:\n{trace}")

    def set_paused(self, dag_id: str, *, paused: bool) -> None:
        """Pause a DAG or let it run."""
        self._ask("PATCH", f"/api/v2/dags/{quote(dag_id)}", json={"is_paused": paused})

    # --- inside

    def _ask(self, method: str, path: str, **arguments: Any) -> Any:
        for fresh in (False, True):
            answer = self._request(method, path, fresh=fresh, **arguments)
            if answer.status_code != httpx.codes.UNAUTHORIZED:
                break
        if answer.is_success:
            return answer.json() if answer.content else {}
        message = f"Airflow answered {answer.status_code} to {method} {path}: {answer.text[:2000]}"
        if answer.is_server_error:
            raise TransientError(message)
        raise PermanentError(message)

    def _request(self, method: str, path: str, *, fresh: bool, **arguments: Any) -> httpx.Response:
        try:
            if self._token is None or fresh:
                answer = self._http.post("/auth/token", json=self._login)
                if answer.is_client_error:
                    raise PermanentError(
                        f"Airflow refused the login of {self._login['username']!r} "
                        f"({answer.status_code})"
                    )
                answer.raise_for_status()
                self._token = str(answer.json()["access_token"])
            headers = {"Authorization": f"Bearer {self._token}"}
            return self._http.request(method, path, headers=headers, **arguments)
        except httpx.HTTPError as error:
            raise TransientError(f"Airflow at {self._http.base_url}: {error!r}") from error

    def _turns(self, timeout_s: float, where: Callable[[], str]) -> Iterable[int]:
        deadline = time.monotonic() + timeout_s
        turn = 0
        while True:
            self._while_waiting()
            yield turn
            turn += 1
            if time.monotonic() > deadline:
                raise TransientError(f"after {timeout_s:g} s: {where()}")
            time.sleep(POLL_INTERVAL_S)

    def _where(self, dag_id: str, run_id: str) -> str:
        tasks = self.task_states(dag_id, run_id)
        open_tasks = [f"{task.name}: {task.state}" for task in tasks if task.state != "success"]
        return f"run {run_id} of {dag_id} has not ended; {'; '.join(open_tasks[:10])}"


def _run_path(dag_id: str, run_id: str) -> str:
    return f"/api/v2/dags/{quote(dag_id)}/dagRuns/{quote(run_id, safe='')}"


def _run(row: Mapping[str, Any]) -> Run:
    return Run(
        dag_id=row["dag_id"],
        run_id=row["dag_run_id"],
        state=row["state"],
        run_type=row["run_type"],
        logical_date=row["logical_date"],
        started_at=row["start_date"],
        ended_at=row["end_date"],
    )


def _task(row: Mapping[str, Any]) -> TaskState:
    label = row.get("rendered_map_index")
    mapped = row["map_index"] >= 0
    return TaskState(
        task_id=row["task_id"],
        map_index=row["map_index"],
        name=f"{row['task_id']} [{label or row['map_index']}]" if mapped else row["task_id"],
        state=row["state"],
        try_number=row["try_number"],
        duration_s=row["duration"],
    )


# Fields of a log event that say nothing about what happened.
_ROUTINE = frozenset(
    {"timestamp", "event", "level", "logger", "filename", "lineno", "loc", "error_detail"}
    | {"dag_id", "run_id", "task_id", "map_index", "try_number", "ti_id"}
)


def _log_lines(event: Mapping[str, Any] | str) -> list[str]:
    if isinstance(event, str):
        return event.splitlines()
    text = str(event["event"])
    if text.startswith("::"):  # folds and unfolds lines in the UI
        return []
    fields = " ".join(f"{key}={value}" for key, value in event.items() if key not in _ROUTINE)
    lines = f"{text} {fields}".rstrip().splitlines()
    for problem in event.get("error_detail") or ():
        lines += f"{problem.get('exc_type')}: {problem.get('exc_value')}".splitlines()
    return lines
