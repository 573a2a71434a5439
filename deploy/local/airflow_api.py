"""Client of Airflow's REST API (v2): trigger runs, wait for them, read logs of failures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

import httpx

from deploy.local.polling import attempts
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
    """One task instance; ``map_index`` is -1 unless the task is mapped."""

    task_id: str
    map_index: int
    name: str
    state: str | None
    try_number: int
    duration_s: float | None


def _nothing() -> None:
    return


class AirflowApi:
    """Client of one API server, with one login.

    Args:
        url: base URL of the API server.
        username, password: of the simple auth manager.
        timeout_s: of one request.
        while_waiting: called in each iteration of a wait; raises to end it early.
        transport: replaces the network in tests.
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
        # The server is on loopback, so proxy variables do not apply.
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
        """Start a run of a DAG and return its id.

        Raises:
            PermanentError: the DAG does not exist, or a param is invalid.
        """
        body = {
            "conf": dict(conf or {}),
            "logical_date": logical_date.isoformat() if logical_date else None,
        }
        answer = self._call("POST", f"/api/v2/dags/{quote(dag_id)}/dagRuns", json=body)
        return str(answer["dag_run_id"])

    def run(self, dag_id: str, run_id: str) -> Run:
        """Return a run with its current state."""
        return _run(self._call("GET", _run_path(dag_id, run_id)))

    def runs(self, dag_id: str, *, limit: int = 50) -> list[Run]:
        """Return the latest runs of a DAG, newest first."""
        answer = self._call(
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
        """Wait until a run has ended; return ``success`` or ``failed``.

        ``on_progress`` is called with the run and its tasks after each change of a state.

        Raises:
            TransientError: not ended within ``timeout_s``; the message lists the open tasks.
        """
        seen: object = None
        for _ in self._poll(timeout_s, lambda: self._where(dag_id, run_id)):
            try:
                run = self.run(dag_id, run_id)
                tasks = self.task_states(dag_id, run_id) if on_progress is not None else []
            except TransientError:  # the API server may be starting again
                continue
            if on_progress is not None:
                now = (run.state, [(task.task_id, task.map_index, task.state) for task in tasks])
                if now != seen:
                    seen = now
                    on_progress(run, tasks)
            if run.state in RUN_ENDED:
                return run.state
        raise AssertionError("unreachable: _poll raises after the timeout")

    def wait_next_run(
        self,
        dag_id: str,
        *,
        run_type: str,
        known: Iterable[str] = (),
        timeout_s: float,
    ) -> str:
        """Wait for a run of this type that is not in ``known``; return its id.

        Raises:
            TransientError: none started within ``timeout_s``.
        """
        seen = set(known)
        for _ in self._poll(timeout_s, lambda: f"no new {run_type} run of {dag_id}"):
            for run in reversed(self.runs(dag_id)):
                if run.run_type == run_type and run.run_id not in seen:
                    return run.run_id
        raise AssertionError("unreachable: _poll raises after the timeout")

    # --- tasks

    def task_states(self, dag_id: str, run_id: str) -> list[TaskState]:
        """Return all task instances of a run; each mapped instance is an item."""
        states: list[TaskState] = []
        while True:
            answer = self._call(
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
        """Return the end of a task's log, with one line for each event."""
        path = f"{_run_path(dag_id, run_id)}/taskInstances/{quote(task_id)}"
        if try_number is None:
            own = path if map_index < 0 else f"{path}/{map_index}"
            try_number = max(1, int(self._call("GET", own)["try_number"]))
        answer = self._call(
            "GET",
            f"{path}/logs/{try_number}",
            params={"map_index": map_index, "full_content": "true"},
        )
        written = [text for event in answer["content"] for text in _log_lines(event)]
        return "\n".join(written[-lines:]) or "(empty)"

    def failures(self, dag_id: str, run_id: str, *, lines: int = 20) -> str:
        """Describe a failed run: each failed task with the end of its log."""
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
        """Return the status of metadatabase, scheduler, triggerer and dag_processor."""
        answer = self._http.get("/api/v2/monitor/health")
        answer.raise_for_status()
        return {name: (part or {}).get("status") for name, part in answer.json().items()}

    def import_errors(self) -> dict[str, str]:
        """Return DAG files that cannot be imported, with their tracebacks."""
        rows = self._call("GET", "/api/v2/importErrors")["import_errors"]
        return {row["filename"]: row["stack_trace"] for row in rows}

    def dag_ids(self) -> set[str]:
        """Return the ids of all parsed DAGs."""
        rows = self._call("GET", "/api/v2/dags", params={"limit": 100})["dags"]
        return {row["dag_id"] for row in rows}

    def wait_dags(self, dag_ids: Iterable[str], *, timeout_s: float) -> None:
        """Wait until these DAGs can be triggered.

        Raises:
            PermanentError: a DAG file cannot be imported; the message contains the traceback.
            TransientError: not all parsed within ``timeout_s``.
        """
        missing = set(dag_ids)
        errors: dict[str, str] = {}
        for _ in self._poll(timeout_s, lambda: f"DAGs not parsed yet: {sorted(missing)}"):
            with suppress(TransientError):  # the API server may be starting again
                missing.difference_update(self.dag_ids())
                errors = self.import_errors() if missing else {}
            if not missing:
                return
            for file, trace in errors.items():
                raise PermanentError(f"Airflow cannot import {file}:\n{trace}")

    def set_paused(self, dag_id: str, *, paused: bool) -> None:
        """Pause or unpause a DAG."""
        self._call("PATCH", f"/api/v2/dags/{quote(dag_id)}", json={"is_paused": paused})

    # --- internals

    def _call(self, method: str, path: str, **arguments: Any) -> Any:
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

    def _poll(self, timeout_s: float, where: Callable[[], str]) -> Iterator[None]:
        for _ in attempts(timeout_s, interval_s=POLL_INTERVAL_S):
            self._while_waiting()
            yield
        raise TransientError(f"after {timeout_s:g} s: {where()}")

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


# Fields of a log event that are the same in every line of a task's log.
_ROUTINE = frozenset(
    {"timestamp", "event", "level", "logger", "filename", "lineno", "loc", "error_detail"}
    | {"dag_id", "run_id", "task_id", "map_index", "try_number", "ti_id"}
)


def _log_lines(event: Mapping[str, Any] | str) -> list[str]:
    if isinstance(event, str):
        return event.splitlines()
    text = str(event["event"])
    if text.startswith("::"):  # group markers for the UI
        return []
    fields = " ".join(f"{key}={value}" for key, value in event.items() if key not in _ROUTINE)
    lines = f"{text} {fields}".rstrip().splitlines()
    for problem in event.get("error_detail") or ():
        lines += f"{problem.get('exc_type')}: {problem.get('exc_value')}".splitlines()
    return lines
