"""A task body is one lazy import of a job and one call of it, checked on the syntax tree."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "dags"
DAG_FILES = sorted(file for file in FOLDER.glob("*.py") if file.name != "__init__.py")
ROOMS = ("include.jobs",)


def is_task(function: ast.FunctionDef) -> bool:
    for decorator in function.decorator_list:
        called = decorator.func if isinstance(decorator, ast.Call) else decorator
        if isinstance(called, ast.Name) and called.id == "task":
            return True
    return False


def fault(function: ast.FunctionDef) -> str | None:
    """Return why the body of this task is more than one call of a job, or None."""
    if len(function.body) != 2:
        return "it should be one import and one return"
    first, last = function.body
    if not isinstance(first, ast.ImportFrom) or not (first.module or "").startswith(ROOMS):
        return f"its first line should import from {' or '.join(ROOMS)}"
    value = last.value if isinstance(last, ast.Return) else None
    if isinstance(value, ast.Attribute):
        value = value.value
    if not isinstance(value, ast.Call) or not isinstance(value.func, ast.Name):
        return "its last line should return the call of a job"
    if value.func.id not in {alias.name for alias in first.names}:
        return "it should call what it imports"
    if value.args:
        return "jobs take keyword arguments only"
    allowed = (
        ast.Name,
        ast.Load,
        ast.Attribute,
        ast.Subscript,
        ast.Constant,
        ast.Call,
        ast.keyword,
    )
    for keyword in value.keywords:
        for node in ast.walk(keyword.value):
            if not isinstance(node, allowed):
                return f"an argument computes something ({type(node).__name__})"
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") not in {
                "settings",
                "window",
                "check_scope",
                "data_interval",
            }:
                return "an argument calls something"
    return None


def tasks_of(source: str) -> list[ast.FunctionDef]:
    tree = ast.parse(source)
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and is_task(node)]


@pytest.mark.parametrize("file", DAG_FILES, ids=lambda file: file.name)
def test_task_body_is_one_import_and_one_call(file):
    assert {task.name: fault(task) for task in tasks_of(file.read_text()) if fault(task)} == {}


@pytest.mark.parametrize("file", DAG_FILES, ids=lambda file: file.name)
def test_dag_file_imports_only_airflow_cosmos_and_support_at_its_top(file):
    known = (
        "airflow.sdk",
        "cosmos.",
        "dags.support.",
        "datetime",
        "pathlib",
        "typing",
    )
    for node in ast.parse(file.read_text()).body:
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            assert name == "__future__" or name.startswith(known), f"{file.name} imports {name}"


@pytest.mark.parametrize("file", DAG_FILES, ids=lambda file: file.name)
def test_no_dag_file_reads_the_clock_or_the_environment(file):
    names = {
        node.attr
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Attribute)
    }
    assert not names & {"now", "utcnow", "today", "environ", "getenv"}


def test_tasks_are_found():
    assert sum(len(tasks_of(file.read_text())) for file in DAG_FILES) >= 5


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("x = 1\n    from include.jobs.a import f\n    return f()", "one import and one return"),
        ("from include.store.a import f\n    return f()", "should import from"),
        ("from include.quality.a import f\n    return f()", "should import from"),
        ("from include.jobs.a import f\n    return g()", "call what it imports"),
        ("from include.jobs.a import f\n    return f(x=1 + 1)", "computes something"),
        ("from include.jobs.a import f\n    return f(x=open('f'))", "calls something"),
        ("from include.jobs.a import f\n    return f(1)", "keyword arguments"),
        ("from include.jobs.a import f\n    return 5", "return the call"),
    ],
)
def test_fault_finds_bodies_that_do_more(body, complaint):
    (task,) = tasks_of(f"@task\ndef t():\n    {body}\n")
    assert complaint in (fault(task) or "")
